"""Calibration errors, re-derived image by image and bin by bin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from engine.analysis import calibration_error as errors
from engine.analysis.scaling import confidences, temperature
from engine.training.metrics.calibration import reliability
from tests.analysis._drawn import drawn, probabilities


def slow_error(confidence: np.ndarray, correct: np.ndarray, bins: np.ndarray) -> float:
    """Guo et al. (2017), equation 3, with loops."""
    total = 0.0
    for number in set(bins.tolist()):
        rows = [n for n in range(len(bins)) if bins[n] == number]
        accuracy = sum(bool(correct[n]) for n in rows) / len(rows)
        mean = sum(float(confidence[n]) for n in rows) / len(rows)
        total += len(rows) / len(bins) * abs(accuracy - mean)
    return total


@pytest.mark.parametrize("make", [errors.equal_width_bins, errors.equal_mass_bins])
def test_the_error_is_that_of_a_slow_loop(make: Callable[..., np.ndarray]) -> None:
    logits, targets = drawn()
    found = confidences(logits, targets)
    correct, bins = found.predicted == targets, make(found.confidence)
    times = errors.resampled(len(targets), resamples=20)
    ours = errors.calibration_error(found.confidence, correct, bins=bins, times=times)
    assert ours.ece == pytest.approx(slow_error(found.confidence, correct, bins), abs=1e-12)
    assert ours.num_images == len(targets)


def test_equal_width_agrees_with_the_metric_of_the_runs() -> None:
    logits, targets = drawn()
    found = confidences(logits, targets)
    ours = errors.calibration_error(
        found.confidence,
        found.predicted == targets,
        bins=errors.equal_width_bins(found.confidence),
    )
    assert ours.ece == pytest.approx(reliability(probabilities(logits), targets).ece, abs=1e-12)


def test_equal_mass_bins_hold_as_many_images_and_are_in_order() -> None:
    confidence = np.random.default_rng(0).random(1000)
    bins = errors.equal_mass_bins(confidence)
    counts = np.bincount(bins)
    assert len(counts) == errors.NUM_BINS and np.ptp(counts) <= 1
    assert all(
        confidence[bins == b].max() <= confidence[bins == b + 1].min()
        for b in range(errors.NUM_BINS - 1)
    )


def test_what_chance_gives_is_the_mean_error_of_labels_drawn_from_the_confidences() -> None:
    generator = np.random.default_rng(1)
    confidence = generator.uniform(0.3, 1, 600)
    bins = errors.equal_width_bins(confidence)
    drawn_errors = [
        np.abs(np.bincount(bins, confidence - (generator.random(600) < confidence))).sum() / 600
        for _ in range(400)
    ]
    found = errors.calibration_error(confidence, confidence > 2, bins=bins)
    assert found.expected_if_calibrated == pytest.approx(np.mean(drawn_errors), rel=0.05)


def test_the_interval_holds_the_true_error_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    hits = 0
    for number in range(60):
        confidence = generator.uniform(0.5, 1, 400)
        correct = generator.random(400) < confidence - 0.2
        bins = errors.equal_width_bins(confidence)
        times = errors.resampled(400, resamples=100, seed=number)
        found = errors.calibration_error(confidence, correct, bins=bins, times=times)
        hits += found.low <= 0.2 <= found.high
    assert 52 <= hits <= 60


def test_resampled_errors_are_those_of_the_images_drawn() -> None:
    confidence = np.random.default_rng(3).uniform(0.3, 1, 90)
    correct = confidence > 0.7
    bins = errors.equal_width_bins(confidence)
    times = errors.resampled(90, resamples=40, seed=4)
    found = errors.calibration_error(confidence, correct, bins=bins, times=times)
    drawn_errors = []
    generator = np.random.default_rng(4)
    for _ in range(40):
        rows = generator.integers(90, size=90, dtype=np.int32)
        drawn_errors.append(slow_error(confidence[rows], correct[rows], bins[rows]))
    low, high = np.quantile(drawn_errors, [0.025, 0.975])
    expected = (2 * found.ece - high, 2 * found.ece - low)
    assert (found.low, found.high) == pytest.approx(np.maximum(expected, 0), abs=1e-6)


def test_the_error_of_each_class_is_that_of_a_slow_loop() -> None:
    logits, targets = drawn(210)
    scaled = temperature(logits, targets)
    found = errors.classwise_error(logits, targets, scaling=scaled, num_bins=5)
    each = probabilities(logits * scaled.factor[0])
    for label in range(7):
        bins = np.array([min(int(np.ceil(p * 5)) - 1, 4) for p in each[:, label]])
        slow = slow_error(each[:, label], targets == label, bins)
        assert found.ece[label] == pytest.approx(slow, abs=1e-10)


def test_the_chance_of_each_class_is_that_of_drawn_labels() -> None:
    logits, targets = drawn(350, sharpness=1.0)
    each = probabilities(logits)
    generator = np.random.default_rng(0)
    drawn_errors, once = np.zeros(7), errors.resampled(350, resamples=1)
    for _ in range(200):
        labels = (generator.random(350)[:, None] > each.cumsum(axis=1)).sum(axis=1).clip(0, 6)
        drawn_errors += errors.classwise_error(logits, labels, times=once).ece / 200
    chance = errors.classwise_error(logits, targets, times=once).expected_if_calibrated
    assert chance == pytest.approx(drawn_errors, rel=0.15)


def test_resampled_class_errors_are_those_of_the_images_drawn() -> None:
    logits, targets = drawn(70)
    found = errors.classwise_error(logits, targets, times=errors.resampled(70, seed=5))
    rows = np.random.default_rng(5).integers(70, size=70, dtype=np.int32)
    again = errors.classwise_error(logits[rows], targets[rows])
    assert found.drawn[0] == pytest.approx(again.ece, abs=1e-10)


def test_resampled_groups_are_drawn_whole_and_one_group_says_nothing() -> None:
    logits, targets = drawn(70)
    groups = np.arange(70) // 7
    drawn_groups = np.random.default_rng(5).integers(10, size=10)
    rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn_groups])
    again = errors.classwise_error(logits[rows], targets[rows])
    times = errors.resampled(70, seed=5, groups=groups)
    assert errors.classwise_error(logits, targets, times=times).drawn[0] == pytest.approx(again.ece)

    confidence, correct = np.full(70, 0.8), np.repeat([True, False], [60, 10])
    bins = errors.equal_width_bins(confidence)
    found = errors.calibration_error(confidence, correct, bins=bins, times=times)
    sizes = times @ np.ones(70)
    slow = np.abs(times @ (confidence - correct)) / sizes
    low, high = 2 * found.ece - np.quantile(slow, [0.975, 0.025])
    assert (found.low, found.high) == pytest.approx((max(0, low), high), abs=1e-6)
    one = errors.resampled(70, groups=np.zeros(70, dtype=int))
    found = errors.calibration_error(confidence, correct, bins=bins, times=one)
    assert (found.low, found.high) == (0, 1)
