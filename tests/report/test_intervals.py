"""Intervals of test numbers: by image, by group, and from a run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.report.cluster_bootstrap import cluster_intervals
from engine.report.intervals import main
from tests._runs import folder_of, small_run


def of(
    targets: np.ndarray, predictions: np.ndarray, groups: np.ndarray | None = None
) -> tuple[float, float, float]:
    masks = {"balanced accuracy": np.ones(2, dtype=bool)}
    found = cluster_intervals(targets, predictions, groups, masks=masks, num_classes=2)
    return tuple(found.means["accuracy"][:3])  # type: ignore[return-value]


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


@pytest.mark.parametrize("recall", [0, 1])
def test_a_recall_of_0_or_1_has_wilsons_interval_of_the_effective_number_of_groups(
    recall: int,
) -> None:
    from scipy.optimize import brentq

    sizes = np.array([12, 9, 8, 7, 5, 3, 2, 1])
    groups, targets = np.repeat(np.arange(8), sizes), np.ones(47, dtype=np.int64)
    found = cluster_intervals(targets, targets * recall, groups, masks={}, num_classes=2)
    worth = 47**2 / (144 + 81 + 64 + 49 + 25 + 9 + 4 + 1)
    # Wilson's ends are the shares p from which the observed one lies 1.96 standard errors away.
    end = brentq(lambda p: (1 - p) - 1.959963985 * np.sqrt(p * (1 - p) / worth), 1e-9, 1 - 1e-9)
    expected = (1.0, end, 1.0) if recall == 1 else (0.0, 0.0, 1 - end)
    assert found.recall[1][:3] == pytest.approx(expected)
    assert found.recall[1].num == 8
    assert found.recall[1].effective == pytest.approx(worth)
    assert found.means["accuracy"] == found.recall[1]


def test_many_images_that_are_all_right_have_wilsons_interval() -> None:
    from scipy.stats import binomtest

    expected = binomtest(400, 400).proportion_ci(method="wilson")
    assert of(np.zeros(400, int), np.zeros(400, int))[1:] == pytest.approx(tuple(expected))


@pytest.mark.parametrize("wrong", [1, 3, 5])
def test_few_groups_never_have_a_narrower_interval_than_wilsons(wrong: int) -> None:
    from scipy.stats import binomtest

    groups = np.arange(60) // 6
    _, low, high = of(np.zeros(60, int), (groups < wrong).astype(np.int64), groups)
    wilson = binomtest(10 - wrong, 10).proportion_ci(method="wilson")
    assert low <= wilson.low + 1e-9
    assert high >= wilson.high - 1e-9


def test_groups_that_are_half_right_each_have_an_interval_as_half_of_so_many() -> None:
    from scipy.stats import binomtest

    groups = np.arange(80) // 2
    _, low, high = of(np.zeros(80, int), np.arange(80) % 2, groups)
    expected = binomtest(20, 40).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx(tuple(expected))


def test_the_interval_of_a_mean_of_recalls_has_the_effective_number_of_the_card() -> None:
    from engine.report.resolution import half_width, mean_half_width

    random = np.random.default_rng(0)
    targets, groups = random.integers(0, 3, 90), random.integers(0, 12, 90)
    two = np.array([True, False, True])
    found = cluster_intervals(targets, targets, groups, masks={"two": two}, num_classes=3)
    width = mean_half_width(targets, groups, classes=two)
    assert width is not None
    assert width.groups == pytest.approx(half_width(found.means["two"].effective))


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
    (line,) = (row for row in printed.splitlines() if row.strip().startswith("class3"))
    assert line.split()[-2:] == ["10", "10.0"]
    assert "95 % bootstrap intervals over 40 images, 2,000 resamples" in printed


def test_a_typo_and_a_folder_without_a_run_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--rul", "val"]) == 2
    assert "--rul: unknown option (did you mean --rule?)" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
