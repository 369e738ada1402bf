"""How many epochs rows have in common is read off what an epoch does, not off their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.tables.trained_alike import sources_of
from tests.tables._tables import cells_of, write_table

BASE = ["data=digits", "data.imbalance.factor=20"]
LAST = {"rule": "last", "settings": {"digits": ["data.validation.per_class=null"]}}
DRW = ["reweight=effective_number", "reweight.start=0.8"]
IB = ["loss=influence_balanced"]
STEPS = ["schedule=steps", "schedule.unit=epoch"]


def shared(
    folder: Path, methods: dict[str, list[str]], **changes: Any
) -> dict[str, tuple[str, int]]:
    """The row that each row begins in, and how many epochs they have in common."""
    usual = {
        "base": BASE,
        "settings": {"digits": []},
        "seeds": [0],
        "baseline": next(iter(methods)),
    }
    cells = cells_of(write_table(folder, methods=methods, **{**usual, **changes}))
    found = sources_of(cells)
    names = {cell.fingerprint: cell.method for cell in cells}
    return {names[run]: (source.cell.method, source.epochs) for run, source in found.items()}


@pytest.mark.parametrize(
    ("words", "epochs"),
    [
        (DRW, 32),
        (["sampler=square_root", "sampler.start=0.5"], 20),
        (["sampler=square_root", "sampler.start=0.51"], 21),  # the first epoch at or after it
        (IB, 20),
        ([*IB, "loss.start=0.3", *DRW], 12),
        ([*IB, "loss.start=0.9", *DRW], 32),
        ([*IB, "reweight=inverse", "reweight.start=0.25"], 10),
        (["model.swa=0.75"], 30),
    ],
)
def test_a_row_has_what_is_before_its_first_deferred_part(
    tmp_path: Path, words: list[str], epochs: int
) -> None:
    assert shared(tmp_path, {"plain": [], "deferred": words}) == {"deferred": ("plain", epochs)}


@pytest.mark.parametrize(
    "words",
    [
        ["reweight=inverse"],
        ["sampler=class_balanced"],
        ["loss=softmax_focal"],
        [*IB, "reweight=inverse"],
        [*DRW, "optim.lr=0.04"],
        [*DRW, "schedule.epochs=20"],
        [*DRW, "model=cifar_resnet8"],
        [*DRW, "loss.label_smoothing=0.1"],
        [*DRW, "sampler.length=500"],
        [*DRW, "track.wandb=offline"],
        [*DRW, "evaluate.metric=val/nll"],
        [*DRW, "evaluate.test_every_epoch=true"],
        ["evaluate.logit_adjustment=1"],  # by which validation predicts, too
        ["model.swa=0.75", "runtime.compile=true"],  # what is evaluated is then another model
    ],
)
def test_what_differs_from_the_first_step_on_has_nothing_in_common(
    tmp_path: Path, words: list[str]
) -> None:
    assert shared(tmp_path, {"plain": [], "other": words}) == {}


def test_seeds_and_subsets_are_trained_apart(tmp_path: Path) -> None:
    changes = {"seeds": [0, 1], "subset_seeds": [0, 1], "pairing": "paired"}
    cells = cells_of(
        write_table(
            tmp_path,
            base=BASE,
            settings={"digits": []},
            methods={"cross_entropy": [], "drw": DRW},
            **changes,
        )
    )
    found = sources_of(cells)
    pairs = [(cell, found[cell.fingerprint].cell) for cell in cells if cell.method == "drw"]
    assert [(run.seed, run.subset_seed) for run, _ in pairs] == [(0, 0), (1, 1)]
    assert [(s.seed, s.subset_seed) for _, s in pairs] == [(0, 0), (1, 1)]


def test_a_row_begins_in_that_with_which_it_has_most_in_common(tmp_path: Path) -> None:
    late = [*DRW, "model.swa=0.9"]
    methods = {"plain": [], "half": ["reweight=inverse", "reweight.start=0.5"], "drw": DRW}
    found = shared(tmp_path, {**methods, "averaged": late})
    assert found == {"half": ("plain", 20), "drw": ("plain", 32), "averaged": ("drw", 36)}


def test_a_key_that_needs_class_weights_waits_for_them(tmp_path: Path) -> None:
    ldam = ["loss=ldam", "model.head=cosine"]
    drw = [*ldam, "loss.normalize=weights", *DRW]
    assert shared(tmp_path, {"ldam": ldam, "drw": drw}) == {"drw": ("ldam", 32)}
    assert shared(tmp_path, {"ldam": ldam, "drw": [*drw, "loss.max_margin=0.4"]}) == {}


@pytest.mark.parametrize(
    ("words", "epochs"),
    [
        (["schedule.steps=[0.5, 0.8, 0.9]", "schedule.decay=0.01"], 20),
        (["schedule.steps=[0.79]"], 36),  # falls with the epoch that 0.8 does
        (["schedule.steps=[0.8]"], 36),
        (["schedule.warmup=0.1"], 0),
    ],
)
def test_schedules_are_compared_by_their_rates(
    tmp_path: Path, words: list[str], epochs: int
) -> None:
    found = shared(tmp_path, {"plain": [], "other": words}, **_with_settings(STEPS))
    assert found == ({"other": ("plain", epochs)} if epochs else {})


def _with_settings(words: list[str]) -> dict[str, Any]:
    return {"settings": {"digits": words}}


def test_a_rate_that_changes_by_the_step_is_compared_by_its_keys(tmp_path: Path) -> None:
    found = shared(
        tmp_path,
        {"plain": [], "other": ["schedule.steps=[0.5, 0.8]"], "drw": DRW},
        **_with_settings(["schedule=steps"]),
    )
    assert found == {"drw": ("plain", 32)}


def test_no_row_begins_in_one_whose_best_epoch_was_not_open_yet(tmp_path: Path) -> None:
    methods = {"drw": DRW, "cross_entropy": []}
    assert shared(tmp_path, methods) == {}  # the rule val: cross-entropy may choose any epoch
    assert shared(tmp_path, methods, **LAST) == {"cross_entropy": ("drw", 32)}


def test_of_rows_that_differ_in_predictions_alone_the_one_with_an_oracle_is_trained(
    tmp_path: Path,
) -> None:
    oracle = "evaluate.test_every_epoch=true"
    adjusted = ["evaluate.logit_adjustment=1"]
    methods = {"adjusted": adjusted, "drw": DRW, "cross_entropy": [oracle]}
    assert shared(tmp_path, methods, **LAST) == {"adjusted": ("cross_entropy", 40)}
    methods = {"cross_entropy": [oracle], "drw": DRW, "both": [oracle, *adjusted]}
    assert shared(tmp_path, methods, **LAST) == {"drw": ("cross_entropy", 32)}
