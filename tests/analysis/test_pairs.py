"""Several runs: paired by image and by seed, and left out where the images are others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from engine.analysis.comparison_screen import ComparisonScreen
from engine.analysis.pairs import Outcome, compare
from engine.report.statistics import paired_difference

TARGETS = np.arange(60) % 3
COUNTS = [200, 50, 5]


def outcome(
    group: str, seed: int, *, first_index: int = 0, split: str = "one", formers: Sequence[str] = ()
) -> Outcome:
    """A run that is right more often the larger its seed, and more so in group b."""
    generator = np.random.default_rng(seed)
    share = 0.5 + 0.02 * seed + (0.2 if group == "b" else 0)
    labels = np.where(generator.random(60) < share, TARGETS, (TARGETS + 1) % 3)
    recall = np.mean([(labels[c == TARGETS] == c).mean() for c in range(3)])
    about = {
        "folder": f"runs/{group}{seed}",
        "group": group,
        "loss": group,
        "seed": seed,
        "split_fingerprint": split,
        "former_fingerprints": formers,
        "class_counts": COUNTS,
        "many_above": 100,
        "few_below": 20,
        "class_names": ["ant", "bee", "cow"],
    }
    index = np.arange(60) + first_index
    return Outcome(about, TARGETS, index, {"as_is": labels}, {"as_is": float(recall)})


def test_two_configs_are_paired_seed_by_seed() -> None:
    ours, theirs = [outcome("b", s) for s in range(5)], [outcome("a", s) for s in range(5)]
    found = compare([*theirs, *reversed(ours)])["seeds"]["differences"]["as_is"]
    expected = paired_difference(
        [o.balanced_accuracy["as_is"] for o in ours],
        [o.balanced_accuracy["as_is"] for o in theirs],
    )
    assert (found["mean"], found["low"], found["n"]) == (expected.mean, expected.low, 5)


def test_seeds_of_few_subsets_are_averaged_and_count_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = [(seed, split) for seed in range(5) for split in ("one", "two")]
    theirs, ours = ([outcome(g, seed, split=split) for seed, split in keys] for g in "ab")
    found = compare([*theirs, *ours])
    assert found["seeds"]["differences"]["as_is"]["n"] == 5
    ComparisonScreen().comparison(found)
    assert "over 5 seeds, as it is" in capsys.readouterr().out


def test_runs_on_a_subset_each_count_subsets(capsys: pytest.CaptureFixture[str]) -> None:
    theirs, ours = ([outcome(g, seed, split=f"s{seed}") for seed in range(5)] for g in "ab")
    ComparisonScreen().comparison(compare([*theirs, *ours]))
    assert "over 5 subsets, as it is" in capsys.readouterr().out


def test_runs_are_paired_by_what_their_data_are_called_today() -> None:
    theirs = [outcome("a", seed, split="by names") for seed in range(5)]
    ours = [outcome("b", seed, split="by pixels", formers=["by names"]) for seed in range(5)]
    assert compare([*theirs, *ours])["seeds"]["differences"]["as_is"]["n"] == 5


def test_one_config_has_no_pairs_of_seeds() -> None:
    assert compare([outcome("a", 0), outcome("a", 1)])["seeds"] is None


def test_runs_on_other_images_are_named_and_left_out() -> None:
    found = compare([outcome("a", 0), outcome("b", 0), outcome("b", 1, first_index=7)])
    assert [pair["run"]["folder"] for pair in found["pairs"]] == ["runs/b0"]
    assert found["strangers"] == ["runs/b1"]


def test_the_difference_is_that_of_balanced_accuracies() -> None:
    first, other = outcome("a", 0), outcome("b", 0)
    row = compare([first, other])["pairs"][0]["ways"]["as_is"]
    change = other.balanced_accuracy["as_is"] - first.balanced_accuracy["as_is"]
    assert row["difference"]["balanced"][0] == pytest.approx(change)
    differ = first.predictions["as_is"] != other.predictions["as_is"]
    assert row["disagreement"] == pytest.approx(differ.mean())


def test_a_gain_in_balanced_accuracy_stands_beside_the_loss_in_accuracy_that_p_tests(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The second loses 20 of 40 head images, and gains 5 of 10 in each of two rare classes.
    targets = np.repeat([0, 1, 2], [40, 10, 10])
    one, two = np.zeros(60, dtype=int), targets.copy()
    two[:20], two[40:45], two[50:55] = 1, 0, 0
    about = outcome("a", 0).about
    first, other = (
        Outcome(about, targets, np.arange(60), {"as_is": labels}, {"as_is": 0.0})
        for labels in (one, two)
    )
    found = compare([first, other])
    row = found["pairs"][0]["ways"]["as_is"]
    assert row["difference"]["balanced"][0] == pytest.approx((-0.5 + 0.5 + 0.5) / 3)
    assert row["mcnemar"]["accuracy_difference"] == pytest.approx((10 - 20) / 60)
    ComparisonScreen().comparison(found)
    line = capsys.readouterr().out.partition("McNemar")[2]
    assert ["-16.7", "20", "10"] == line.partition("as it is")[2].split()[:3]


def test_runs_on_groups_of_images_have_intervals_over_groups_and_no_p(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = compare([outcome("a", 0), outcome("b", 0)])["pairs"][0]["ways"]["as_is"]
    groups = np.arange(60) // 15
    found = compare([replace(outcome(g, 0), groups=groups) for g in "ab"])
    row = found["pairs"][0]["ways"]["as_is"]
    for interval, alone in zip(
        row["difference"].values(), plain["difference"].values(), strict=True
    ):
        assert interval[0] == pytest.approx(alone[0]) and interval[1:] != alone[1:]
    test = row["mcnemar"]
    assert test["p"] is None and test["only_second"] == plain["mcnemar"]["only_second"]
    low, high = test["accuracy_interval"]
    assert low < test["accuracy_difference"] < high
    ComparisonScreen().comparison(found)
    shown = capsys.readouterr().out
    assert "interval over groups" in shown and "over images" not in shown
    assert "no p: McNemar's test takes images as independent" in shown
