"""The tables that ship: each says what it is, resolves, and trains on images of its shape."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import train
from engine.config.components import ROOT, names
from engine.config.load import fingerprint, flatten, load
from engine.config.schema import Config
from engine.tables.cells import Cell
from engine.tables.table_file import read_table_file
from tests._runs import quiet_screen
from tests.tables._tables import cells_of

PAPERS = sorted((ROOT / "experiments" / "papers").glob("*.yaml"))
SLOW = pytest.mark.slow
# Classes, side and channels of the data sets.
SHAPES = {
    "digits": (10, 8, 1),
    "fashion_mnist": (10, 28, 1),
    "cifar10": (10, 32, 3),
    "cifar100": (100, 32, 3),
    "image_folder": (10, 32, 3),  # the copy of CIFAR-10
    "infrared_solar": (12, 24, 1),
    "chula_rbc12": (13, 40, 3),
    "image_list": (10, 32, 3),  # photographs, of hundreds of classes and 224 pixels
}
WITH_FACTOR = ("exponential", "step", "pareto")
SMALL_NETWORK = {"model.name": "cifar_resnet8"}
# Heads of second stages.
OF_OTHERS = ("learnable_scaling", "nearest_mean", "tau_normalised")
# Distinct runs on drawn images: a method on a data set with a shape of imbalance.
NUM_KINDS = {
    "balanced_softmax_logit_adjustment": 9 * 4,
    "cifar10_jpeg": 1,
    "cifar10_jpeg_30": 8,
    "cifar10_jpeg_200": 8,
    "chula_rbc12": 6,
    "class_balanced": 13 * 2,
    "digits_decoupling": 3,  # heads of second stages need a first, which is not made here
    "digits_duel": 9,
    "digits_lt": 27,
    "digits_lt_factor_10": 12,
    "digits_profiles": 3 * 4,  # shapes without a factor are cut like the exponential one
    "digits_small": 4,
    "fashion_mnist_lt": 8,
    "fine_tuning": 3 * 2 * 2,  # three losses, two rates: ways of light tuning need weights
    "focal_gamma": 10 * 2,
    "ib_cifar": 11 * 4,
    "imagenet_lt_resnet10": 4,
    "imagenet_lt_resnext50": 8,  # class-balanced sampling is cRT without its first stage
    "inaturalist18": 6,
    "infrared_duel": 3 * 2,  # its recipes differ in batch size, which is the same here
    "infrared_precision": 2,
    "infrared_solar": 9,
    "infrared_timm": 9,
    "ldam_drw": 12 * 4,
    "places_lt": 5,
}


def stand_in(cell: Cell, root: Path, **changes: Any) -> Config:
    """The run on a few drawn images of the same shape; methods see every phase in five epochs."""
    data = cell.config.data
    num_classes, size, channels = SHAPES[data.name]
    kind, augment = data.imbalance.kind, data.augment
    # Else the images are in memory, and workers have no effect.
    is_by_image = bool(augment.resized_crop or augment.color_jitter or augment.policy != "none")
    values = {k: v for k, v in flatten(cell.config).items() if not k.startswith("data.")}
    values |= {k: v for k, v in flatten(cell.config).items() if k.startswith("data.augment.")}
    if cell.config.model.tune != "full" or cell.config.model.head in OF_OTHERS:
        values = {k: v for k, v in values.items() if not k.startswith("model.")}
    values |= {
        "data.name": "synthetic",
        "data.num_classes": num_classes,
        "data.size": size,
        "data.channels": channels,
        "data.num_train_per_class": 3,
        "data.num_test_per_class": 1,
        # A natural long tail is cut out of drawn images, with a factor that leaves each class one.
        "data.imbalance.kind": kind if kind in WITH_FACTOR else "exponential",
        "data.imbalance.factor": 2.0,
        "data.validation.per_class": 1 if data.validation.per_class else None,
        "model.pretrained": False,  # no weights are downloaded
        "model.init_from": None,  # the first stage of another
        "model.init_head": True,
        "model.freeze": False,  # a frozen backbone needs the weights of the first stage
        "optim.batch_size": 2 * num_classes,
        "schedule.epochs": 5,
        "track.root": str(root),
        "runtime.threads": 1,
        "runtime.compile": False,  # takes longer than the run
        **({"runtime.workers": 0} if is_by_image else {}),
        **changes,
    }
    return load(values=values)


class FirstEpochDone(Exception):  # noqa: N818 - what stops a run after its first epoch
    pass


def first_row(config: Config) -> dict[str, Any]:
    """The line of metrics of the first epoch of a run, which goes no further."""
    rows: list[dict[str, Any]] = []

    def report(_epoch: int, row: Mapping[str, Any]) -> None:
        rows.append(dict(row))
        raise FirstEpochDone

    with pytest.raises(FirstEpochDone):
        train.run(config, report=report, screen=quiet_screen())
    return rows[0]


@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_a_table_opens_with_command_cost_and_expected_result(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    opening = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    heads = [line[4:12].strip() for line in opening if line.startswith("#   ") and line[4] != " "]
    assert heads[:3] == ["command", "cost", "expected"]
    assert path.name in " ".join(opening) or "make table" in " ".join(opening)


@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_every_run_of_a_table_resolves(path: Path) -> None:
    table = read_table_file(path)
    num = len(table.methods) * len(table.settings) * len(table.seed_pairs)
    assert len({cell.fingerprint for cell in cells_of(path)}) == num


@pytest.mark.parametrize(
    "path",
    # The two that between them have every kind of row; the others take as long, and say the same.
    [p if p.stem in ("digits_lt", "places_lt") else pytest.param(p, marks=SLOW) for p in PAPERS],
    ids=lambda p: p.stem,
)
def test_the_first_epoch_of_every_method_runs(path: Path, tmp_path: Path) -> None:
    """In the first setting, with the epochs of the table and a small network."""
    table = read_table_file(path)
    first = (next(iter(table.settings)), *table.seed_pairs[0])
    chosen = [c for c in cells_of(path) if (c.setting, c.seed, c.subset_seed) == first]
    assert len(chosen) == len(table.methods)
    for cell in chosen:
        epochs = {"schedule.epochs": cell.config.schedule.epochs}
        # In one folder, rows that differ in what the stand-in leaves out would resume each other.
        config = stand_in(cell, tmp_path / cell.method, **SMALL_NETWORK, **epochs)
        row = first_row(config)
        assert row["epoch"] == 1
        assert math.isfinite(row["train/loss"])


@pytest.mark.slow
@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_every_method_runs_through_all_its_phases_on_every_kind_of_setting(
    path: Path, tmp_path: Path
) -> None:
    first = read_table_file(path).seed_pairs[0]
    chosen = [cell for cell in cells_of(path) if (cell.seed, cell.subset_seed) == first]
    own = stand_in(chosen[0], tmp_path)
    small = (stand_in(cell, tmp_path, **SMALL_NETWORK) for cell in chosen)
    configs = {fingerprint(config): config for config in small}
    assert len(configs) == NUM_KINDS[path.stem]
    configs[fingerprint(own)] = own  # one with the network of the table
    for config in configs.values():
        summary = train.run(config, screen=quiet_screen())
        assert summary.rules["last"].epoch == 5
        assert len(summary.class_counts) == config.data.num_classes


@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_every_published_number_that_a_table_refers_to_exists(path: Path) -> None:
    with (ROOT / "experiments" / "published.csv").open(encoding="utf-8", newline="") as file:
        known = {(r["paper"], r["table_or_place"], r["method"]) for r in csv.DictReader(file)}
    references = {
        (reference.paper, reference.table, method)
        for reference in read_table_file(path).published
        for method in reference.methods.values()
    }
    assert references <= known


def test_every_table_is_counted() -> None:
    assert {path.stem for path in PAPERS} == NUM_KINDS.keys()


def test_digits_lt_compares_the_losses() -> None:
    used = {cell.config.loss.name for cell in cells_of(ROOT / "experiments/papers/digits_lt.yaml")}
    assert len(used) >= 12
    assert used <= set(names("losses"))


def test_the_small_table_is_a_part_of_the_large_one() -> None:
    small, large = (
        {(c.method, c.fingerprint) for c in cells_of(ROOT / f"experiments/papers/{name}.yaml")}
        for name in ("digits_small", "digits_lt")
    )
    assert small < large
