"""Temperatures: the likelihood is as low as a general minimiser gets it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from engine.analysis import scaling
from tests.analysis._drawn import drawn, probabilities


def test_the_temperature_is_that_of_a_general_minimiser() -> None:
    logits, targets = drawn(sharpness=4.0)
    found = minimize_scalar(
        lambda t: log_loss(targets, probabilities(logits / t)), bounds=(0.05, 20), method="bounded",
        options={"xatol": 1e-8},
    )  # fmt: skip
    fitted = scaling.temperature(logits, targets)
    assert 1 / fitted.factor[0] == pytest.approx(found.x, rel=1e-5)
    assert np.ptp(fitted.factor) == 0


def test_weights_count_as_copies_of_images() -> None:
    logits, targets = drawn()
    times = np.random.default_rng(0).integers(0, 4, len(targets))
    copied = np.repeat(np.arange(len(targets)), times)
    weighted = scaling.temperature(logits, targets, weights=times.astype(float))
    repeated = scaling.temperature(logits[copied], targets[copied])
    assert weighted.factor[0] == pytest.approx(repeated.factor[0], rel=1e-6)


def test_likelihood_and_confidence_are_those_of_scikit_learn_and_the_softmax() -> None:
    logits, targets = drawn()
    found = scaling.confidences(logits, targets)
    assert found.nll == pytest.approx(log_loss(targets, probabilities(logits)), abs=1e-12)
    assert found.confidence == pytest.approx(probabilities(logits).max(axis=1), abs=1e-12)
    assert (found.predicted == logits.argmax(axis=1)).all()


def test_each_predicted_class_with_images_enough_has_the_temperature_of_its_own_images() -> None:
    logits, targets = drawn(700, sharpness=3.0)
    fitted = scaling.class_temperatures(logits, targets)
    predicted = logits.argmax(axis=1)
    shared = scaling.temperature(logits, targets).factor[0]
    enough = np.bincount(predicted, minlength=7) >= scaling.FEWEST_PREDICTED
    assert enough.any() and not enough.all()
    for label in range(7):
        rows = predicted == label
        own = (
            scaling.temperature(logits[rows], targets[rows]).factor[0] if enough[label] else shared
        )
        assert fitted.factor[label] == pytest.approx(own, rel=1e-6)


def test_temperatures_change_no_prediction() -> None:
    logits, targets = drawn()
    for fitted in (
        scaling.temperature(logits, targets),
        scaling.class_temperatures(logits, targets),
    ):
        found = scaling.confidences(logits, targets, scaling=fitted)
        assert (found.predicted == logits.argmax(axis=1)).all()


def test_vector_scaling_reaches_the_likelihood_of_a_general_minimiser() -> None:
    logits, targets = drawn(140)
    logits, targets = logits[targets < 3, :3], targets[targets < 3]

    def nll(numbers: np.ndarray) -> float:
        each = probabilities(logits * numbers[:3] + numbers[3:])
        return float(-np.log(each[np.arange(len(targets)), targets]).mean())

    slow = minimize(nll, np.concatenate([np.ones(3), np.zeros(3)]), method="BFGS")
    fitted = scaling.vector(logits, targets)
    found = scaling.confidences(logits, targets, scaling=fitted)
    assert found.nll == pytest.approx(slow.fun, abs=1e-5)


def test_a_fit_that_is_cut_short_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = drawn(140)
    assert scaling.vector(logits, targets).converged
    monkeypatch.setattr(scaling, "VECTOR_ITERATIONS", 1)
    assert not scaling.vector(logits, targets).converged


def test_two_classes_are_scaled_as_logistic_regression_without_penalty_does() -> None:
    generator = np.random.default_rng(3)
    margin = generator.normal(size=300)
    targets = (generator.random(300) < 1 / (1 + np.exp(-(0.7 * margin + 0.4)))).astype(int)
    logits = np.column_stack([np.zeros(300), margin])
    fitted = scaling.vector(logits, targets)
    model = LogisticRegression(C=np.inf, tol=1e-8).fit(margin[:, None], targets)
    assert fitted.factor[1] == pytest.approx(model.coef_[0, 0], abs=2e-3)
    assert fitted.bias[1] - fitted.bias[0] == pytest.approx(model.intercept_[0], abs=2e-3)


def test_without_a_mistake_the_temperature_stops_at_the_lower_end() -> None:
    logits = np.eye(3)[np.arange(30) % 3]
    fitted = scaling.temperature(logits, np.arange(30) % 3)
    assert 1 / fitted.factor[0] == pytest.approx(scaling.COLDEST)
