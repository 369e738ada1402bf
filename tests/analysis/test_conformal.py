"""Prediction sets against p-values counted image by image, and their promises by drawing."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import beta

from engine.analysis import conformal
from engine.analysis.calibrated_sets import chose_epoch
from engine.analysis.stored_run import read_stored_run
from tests.analysis._drawn import COUNTS, drawn, probabilities
from tests.analysis.conftest import Runs

PRIOR = COUNTS / COUNTS.sum()


def by_p_values(
    held_out: np.ndarray, scores: np.ndarray, kinds: np.ndarray, *, alpha: float
) -> np.ndarray:
    """Vovk's definition: a class is in where more than alpha of the scores are as large as its.

    ``held_out`` (n,) of ``kinds`` (n,); ``scores`` (N, C), class c being compared with kind c; one
    kind alone is compared with every class.
    """
    found = np.zeros(scores.shape, dtype=bool)
    for row, column in np.ndindex(*scores.shape):
        own = held_out if kinds.max() == 0 else held_out[kinds == column]
        p = (1 + (own >= scores[row, column]).sum()) / (len(own) + 1)
        found[row, column] = p > alpha
    return found


@pytest.mark.parametrize(("way", "alpha"), [
    ("marginal", 0.1), ("marginal", 0.25), ("class-conditional", 0.1), ("class-conditional", 0.03),
    ("prevalence-adjusted", 0.1),
])  # fmt: skip
def test_sets_are_those_of_p_values_counted_one_by_one(way: str, alpha: float) -> None:
    held_out, labels = drawn(140, seed=1)
    logits, targets = drawn(63, seed=2)
    limits = conformal.thresholds(held_out, labels, COUNTS, alpha=alpha)[way]
    ours = conformal.prediction_sets(logits, targets, limits)
    weight = 1 / PRIOR if way == "prevalence-adjusted" else np.ones(7)
    own = -(probabilities(held_out) * weight)[np.arange(140), labels]
    kinds = labels if way == "class-conditional" else np.zeros_like(labels)
    slow = by_p_values(own, -probabilities(logits) * weight, kinds, alpha=alpha)
    assert ours.size.tolist() == slow.sum(axis=1).tolist()
    assert ours.covered.tolist() == slow[np.arange(63), targets].tolist()


def test_the_quantile_at_alpha_near_one_is_the_smallest_score() -> None:
    assert conformal.quantile(np.array([3.0, 1.0, 2.0]), alpha=1 - 1e-12) == 1.0


def test_a_class_with_too_few_images_is_in_every_class_conditional_set() -> None:
    held_out, labels = drawn(140)
    kept = (labels != 6) | (np.cumsum(labels == 6) <= 8)
    limits = conformal.thresholds(held_out[kept], labels[kept], COUNTS, alpha=0.1)
    assert np.flatnonzero(np.isneginf(limits["class-conditional"])).tolist() == [6]
    logits, _ = drawn(50, seed=3)
    sets = conformal.prediction_sets(logits, np.full(50, 6), limits["class-conditional"])
    assert sets.covered.all()


def test_interpolated_thresholds_lie_halfway_between_the_quantiles_of_one_minus_p() -> None:
    held_out, labels = drawn(140)
    limits = {k: np.exp(v) for k, v in conformal.thresholds(held_out, labels, COUNTS).items()}
    middle = (limits["marginal"] + limits["class-conditional"]) / 2
    assert limits["interpolated"] == pytest.approx(middle)


def test_each_way_keeps_its_promise_over_drawn_splits() -> None:
    covered = {"marginal": 0.0, "class-conditional": 0.0, "prevalence-adjusted": 0.0}
    rarest = 0.0
    for seed in range(60):
        held_out, labels = drawn(210, seed=2 * seed)
        logits, targets = drawn(210, seed=2 * seed + 1)
        limits = conformal.thresholds(held_out, labels, COUNTS)
        for way in covered:
            sets = conformal.prediction_sets(logits, targets, limits[way])
            covered[way] += sets.covered.mean() / 60
            if way == "class-conditional":
                rarest += sets.covered[targets == 6].mean() / 60
    assert all(0.885 <= value <= 0.93 for value in covered.values()), covered
    assert 0.88 <= rarest <= 0.95


def test_prevalence_adjusted_sets_cover_rare_classes_better_than_marginal_ones() -> None:
    held_out, labels = drawn(700, seed=1)
    logits, targets = drawn(700, seed=2)
    limits = conformal.thresholds(held_out, labels, COUNTS)
    few = targets >= 5
    marginal, adjusted = (
        conformal.prediction_sets(logits, targets, limits[way]).covered[few].mean()
        for way in ("marginal", "prevalence-adjusted")
    )
    assert adjusted > marginal + 0.05


@pytest.mark.parametrize(("hits", "number"), [(0, 5), (9, 10), (50, 50)])
def test_wilsons_interval_holds_the_shares_that_a_z_test_would_not_reject(
    hits: int, number: int
) -> None:
    low, high = conformal.wilson(hits, number)
    z = NormalDist().inv_cdf(0.975)
    for share in {low, high} - {0.0, 1.0}:
        assert abs(hits / number - share) == pytest.approx(
            z * math.sqrt(share * (1 - share) / number), rel=1e-9
        )


def test_the_number_of_images_needed_is_the_first_that_suffices_from_there_on() -> None:
    number = conformal.images_for(0.1, tolerance=0.05)

    def suffices(n: int) -> bool:
        missed = math.floor((n + 1) / 10)
        return bool(beta.ppf(0.05, n + 1 - missed, missed) >= 0.85)

    assert not suffices(number - 1)
    assert all(suffices(n) for n in range(number, number + 20))


def test_validation_chooses_the_epoch_by_a_rule_or_by_stopping_early(runs: Runs) -> None:
    found = [read_stored_run(runs.plain, rule=rule) for rule in ("val", "last")]
    assert [chose_epoch(run) for run in found] == [True, False]
    schedule = found[1].config.schedule.model_copy(update={"patience": 1})
    config = found[1].config.model_copy(update={"schedule": schedule})
    assert chose_epoch(replace(found[1], config=config))
