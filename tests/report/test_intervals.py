"""Intervals of test numbers: by image, by group, and from a run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.report.intervals import cluster_intervals, main
from tests._runs import folder_of, small_run


def of(
    targets: np.ndarray, predictions: np.ndarray, groups: np.ndarray | None = None
) -> tuple[float, float, float]:
    masks = {"balanced accuracy": np.ones(2, dtype=bool)}
    found = cluster_intervals(targets, predictions, groups, masks=masks, num_classes=2)
    return tuple(found.means["accuracy"])  # type: ignore[return-value]


def test_without_groups_the_interval_is_about_the_binomial_one() -> None:
    targets = np.zeros(400, dtype=np.int64)
    value, low, high = of(targets, (np.arange(400) % 4 == 0).astype(np.int64))
    assert value == 0.75
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert low == pytest.approx(0.75 - half, abs=0.006)
    assert high == pytest.approx(0.75 + half, abs=0.006)


def test_images_that_stand_and_fall_together_widen_the_interval_by_the_root_of_their_number() -> (
    None
):
    targets, groups = np.zeros(900, dtype=np.int64), np.arange(900) // 9
    predictions = (groups % 2).astype(np.int64)
    _, low, high = of(targets, predictions)
    _, low_by_group, high_by_group = of(targets, predictions, groups)
    assert (high_by_group - low_by_group) / (high - low) == pytest.approx(3, rel=0.1)


def test_a_class_without_test_images_has_no_interval_and_leaves_the_mean_alone() -> None:
    targets = np.array([0, 0, 1, 1])
    found = cluster_intervals(
        targets,
        np.array([0, 0, 1, 0]),
        None,
        masks={"balanced accuracy": np.ones(3, dtype=bool)},
        num_classes=3,
    )
    assert found.means["balanced accuracy"].value == 0.75
    assert np.isnan(found.recall[2].value)


def test_a_finished_run_prints_its_numbers_with_intervals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ("evaluate.many_above=25", "evaluate.few_below=10")
    words = ("schedule.epochs=1", "model=cifar_resnet8", *limits)
    summary = small_run(tmp_path, *words)
    assert main([str(folder_of(tmp_path, *words))]) == 0
    printed = capsys.readouterr().out
    value = summary.result.test["balanced_accuracy"]
    (line,) = (row for row in printed.splitlines() if "balanced accuracy" in row)
    assert f"{value:.3f}" in line
    assert "class3" in printed
    many = summary.result.test["many_accuracy"]
    (line,) = (row for row in printed.splitlines() if row.strip().startswith("many"))
    assert f"{many:.3f}" in line


def test_a_typo_and_a_folder_without_a_run_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--rul", "val"]) == 2
    assert "--rul: unknown option (did you mean --rule?)" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
