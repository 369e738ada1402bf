"""The YAML files that ship: each loads, alone and on top of every data set, and says what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.components import ROOT
from engine.config.load import fingerprint, load

EXPERIMENTS = ROOT / "experiments"
DATA_SETS = sorted(EXPERIMENTS.glob("*.yaml"))
PARTS = sorted([*EXPERIMENTS.glob("methods/*.yaml"), *EXPERIMENTS.glob("recipes/*.yaml")])
PHOTOGRAPHS = sorted(EXPERIMENTS.glob("photographs/*.yaml"))
INCREMENTAL = sorted(EXPERIMENTS.glob("incremental/*.yaml"))


def test_there_are_experiments() -> None:
    assert {"digits_lt", "fashion_mnist_lt", "cifar10_lt", "cifar100_lt"} <= {
        path.stem for path in DATA_SETS
    }
    assert len(PARTS) >= 8


@pytest.mark.parametrize("data", DATA_SETS, ids=lambda p: p.stem)
@pytest.mark.parametrize("part", PARTS, ids=lambda p: p.stem)
def test_every_part_goes_on_top_of_every_data_set_and_changes_it(data: Path, part: Path) -> None:
    # A second stage needs a first, which a table names.
    planned = {"runs/first": "0" * 12}
    stages = {"crt", "lws", "nearest_mean", "tau_normalised"}
    stage = ["model.init_from=runs/first"] if part.stem in stages else []
    alone, together = load([data]), load([data, part], stage, planned=planned)
    baselines = {"cross_entropy"}
    if alone.data.validation.per_class is alone.data.validation.fraction is None:
        baselines.add("published")  # already as published
    is_same = fingerprint(together, planned=planned) == fingerprint(alone)
    assert is_same == (part.stem in baselines)


def test_the_halves_of_the_incremental_digits_are_all_digits_and_share_their_recipe() -> None:
    first, second = (load([path]) for path in INCREMENTAL)
    assert first.data.classes is not None
    assert second.data.classes is not None
    assert second.data.test_classes == first.data.classes + second.data.classes
    data = second.data.model_copy(update={"classes": first.data.classes, "test_classes": None})
    assert second.model_copy(update={"data": data}) == first


@pytest.mark.parametrize("recipe", PHOTOGRAPHS, ids=lambda p: p.stem)
def test_a_recipe_of_photographs_crops_whole_images_and_tests_their_centre(recipe: Path) -> None:
    config = load([recipe], ["data.path=photos"])
    assert config.data.augment.resized_crop > 0
    assert config.data.crop_ratio == 0.875
    assert (config.data.normalize == "weights") == bool(config.model.pretrained)


@pytest.mark.parametrize(
    "path", [*DATA_SETS, *PARTS, *INCREMENTAL, *PHOTOGRAPHS], ids=lambda p: p.stem
)
def test_every_file_says_in_its_first_line_what_it_is(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_digits_lt_is_what_train_does_without_arguments() -> None:
    assert load([EXPERIMENTS / "digits_lt.yaml"]) == load()


def test_cifar10_lt_is_the_published_recipe_epoch_by_epoch() -> None:
    """LDAM-DRW's cifar_train.py: 0.1 with 5 epochs of warm-up, x0.01 after epochs 160 and 180."""
    from engine.config.schema import chosen_keys
    from engine.training.rates import rate_factor
    from engine.training.schedules.steps import Steps

    config = load([EXPERIMENTS / "cifar10_lt.yaml"])
    schedule = config.schedule
    falls = Steps(**chosen_keys(config, "schedule.name"))
    rates = [
        0.1
        * rate_factor(
            epoch,
            schedule.epochs,
            schedule=falls,
            warmup=schedule.warmup,
        )
        for epoch in range(200)
    ]
    expected = [0.1 * (e + 1) / 5 for e in range(5)] + [0.1] * 155 + [1e-3] * 20 + [1e-5] * 20
    assert rates == pytest.approx(expected)
