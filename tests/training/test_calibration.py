"""NLL, Brier score and calibration error against independent derivations."""

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from engine.training.metrics.calibration import brier, nll, reliability


def drawn(
    *, num_samples: int = 200, num_classes: int = 4, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(num_classes, 0.5), size=num_samples)
    return probabilities, rng.integers(num_classes, size=num_samples)


def slow_ece(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Guo et al. (2017), equations 2 and 3, a sample and a bin at a time, bins ((b-1)/15, b/15]."""
    total = 0.0
    for b in range(1, 16):
        members = []
        for row, target in zip(probabilities.tolist(), targets.tolist(), strict=True):
            if (b - 1) / 15 < max(row) <= b / 15:
                members.append((max(row), row.index(max(row)) == target))
        if members:
            confidence = sum(c for c, _ in members) / len(members)
            accuracy = sum(right for _, right in members) / len(members)
            total += len(members) / len(targets) * abs(accuracy - confidence)
    return total


def test_nll_equals_the_log_loss_of_scikit_learn() -> None:
    probabilities, targets = drawn()
    expected = sk.log_loss(targets, probabilities, labels=range(4))
    assert nll(probabilities, targets) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("dtype", "worst"), [(np.float32, 87.336545), (np.float64, 708.396419)])
def test_nll_of_a_probability_of_zero_is_that_of_the_smallest_normal_number(
    dtype: type, worst: float
) -> None:
    found = nll(np.array([[0.0, 1.0]], dtype=dtype), np.array([0]))
    assert found == pytest.approx(worst, rel=1e-6)


def test_nll_of_a_missing_probability_is_nan() -> None:
    assert math.isnan(nll(np.array([[np.nan, 1.0]]), np.array([0])))


@pytest.mark.parametrize("num_classes", [2, 4])
def test_brier_equals_the_unhalved_score_of_scikit_learn(num_classes: int) -> None:
    probabilities, targets = drawn(num_classes=num_classes)
    expected = sk.brier_score_loss(
        targets,
        probabilities if num_classes > 2 else probabilities[:, 1],
        scale_by_half=False,
    )
    assert brier(probabilities, targets) == pytest.approx(expected, rel=1e-9)


def test_brier_of_a_certain_mistake_is_two() -> None:
    assert brier(np.array([[0.0, 1.0]], dtype=np.float32), np.array([0])) == 2.0


def test_brier_sums_in_double_precision() -> None:
    probabilities = np.full((2000, 1000), 1 / 1000, dtype=np.float32)
    exact = 999 * float(np.float32(0.001)) ** 2 + (1 - float(np.float32(0.001))) ** 2
    assert brier(probabilities, np.zeros(2000, dtype=int)) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_ece_equals_a_loop_over_bins_and_samples(seed: int) -> None:
    probabilities, targets = drawn(seed=seed)
    found = reliability(probabilities, targets).ece
    assert found == pytest.approx(slow_ece(probabilities, targets), rel=1e-9)


def test_ece_of_a_calibrated_predictor_is_zero() -> None:
    targets = np.array([0] * 7 + [1] * 3)
    probabilities = np.tile([0.7, 0.3], (10, 1))
    assert reliability(probabilities, targets).ece == pytest.approx(0.0, abs=1e-12)


def test_ece_of_a_certain_coin_toss_is_one_half() -> None:
    probabilities = np.tile([1.0, 0.0], (10, 1))
    assert reliability(probabilities, np.arange(10) % 2).ece == pytest.approx(0.5)


def test_ece_vanishes_when_targets_are_drawn_from_the_probabilities() -> None:
    probabilities, _ = drawn(num_samples=20_000)
    draws = np.random.default_rng(1).random((20_000, 1))
    targets = (probabilities.cumsum(axis=1) < draws).sum(axis=1).clip(max=3)
    assert reliability(probabilities, targets).ece < 0.015


def test_confidence_on_an_edge_belongs_to_the_bin_below_it() -> None:
    edge = float(np.linspace(0, 1, 16)[9])
    counts = reliability(np.array([[edge, 1 - edge]]), np.array([0])).counts
    assert np.flatnonzero(counts).tolist() == [8]


def test_confidence_rounded_above_one_belongs_to_the_last_bin() -> None:
    above = np.nextafter(np.float32(1), np.float32(2))
    counts = reliability(np.array([[above, 0]], dtype=np.float32), np.array([0])).counts
    assert np.flatnonzero(counts).tolist() == [14]


def test_empty_bins_have_no_accuracy() -> None:
    found = reliability(np.array([[0.7, 0.3]]), np.array([0]))
    assert np.isnan(found.accuracy).sum() == 14
    assert found.accuracy[10] == 1.0
    assert found.confidence[10] == pytest.approx(0.7)
