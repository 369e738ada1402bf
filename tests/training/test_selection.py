"""The rule `val`: the best epoch of the method as it is named, never one of its parts alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config.load import load
from engine.training.selection import Selection
from tests._runs import small_run


def chosen(selection: Selection, values: list[float]) -> int | None:
    best: dict[str, Any] | None = None
    for epoch, value in enumerate(values, start=1):
        row = {"epoch": epoch, selection.key: value}
        best = selection.updated(best, row, weights=lambda epoch=epoch: {"w": torch.tensor(epoch)})
    if best is None:
        return None
    assert best["state"]["w"].item() == best["epoch"]
    assert best["value"] == values[best["epoch"] - 1]
    return int(best["epoch"])


@pytest.mark.parametrize(
    ("metric", "values", "first_epoch", "expected"),
    [
        ("val/balanced_accuracy", [0.5, 0.9, 0.9, 0.7], 1, 2),  # the earliest wins a tie
        ("val/balanced_accuracy", [0.5, 0.9, 0.6, 0.7], 3, 4),
        ("val/balanced_accuracy", [0.5, 0.9, 0.6, 0.7], 4, 4),
        ("val/nll", [0.5, 0.1, 0.4, 0.3], 3, 4),
        ("val/nll", [0.5, float("nan"), 0.4, 0.6], 1, 3),
        ("val/nll", [0.5, 0.1, float("nan"), float("nan")], 3, None),
    ],
)
def test_the_best_epoch_is_chosen_among_those_that_may_be(
    metric: str, values: list[float], first_epoch: int, expected: int | None
) -> None:
    assert chosen(Selection(metric, first_epoch=first_epoch), values) == expected


@pytest.mark.parametrize(
    ("words", "first_epoch", "reason"),
    [
        ([], 1, ""),
        (["reweight=inverse"], 1, ""),
        (["reweight=inverse", "reweight.start=0.8"], 9, "reweight.start=0.8"),
        (["sampler=class_balanced", "sampler.start=0.55"], 7, "sampler.start=0.55"),
        (
            ["loss=influence_balanced", "loss.start=0.5", "reweight=inverse", "reweight.start=0.2"],
            6,
            "loss.start=0.5",
        ),
    ],
)
def test_it_begins_with_the_last_part_that_is_deferred(
    words: list[str], first_epoch: int, reason: str
) -> None:
    selection = Selection.of(load(overrides=["schedule.epochs=10", *words]))
    assert (selection.first_epoch, selection.reason) == (first_epoch, reason)


def test_a_run_takes_no_weights_from_before_its_method_began(tmp_path: Path) -> None:
    words = ["reweight=inverse", "reweight.start=0.6", "evaluate.metric=val/nll", "optim.lr=0.2"]
    summary = small_run(tmp_path, *words)
    assert summary.rules["val"].epoch == 3
    assert "val/nll from epoch 3 on (reweight.start=0.6) on " in summary.selection
