"""Other test priors: weighting against drawing, and estimates against a truth that is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from engine.analysis import priors
from engine.analysis.prior_results import balanced_by
from engine.config.load import load
from tests.analysis._drawn import COUNTS, drawn

SOURCE = COUNTS / COUNTS.sum()


def shifted_sample(prior: np.ndarray, num_images: int, *, seed: int) -> tuple[np.ndarray, ...]:
    """Exact log-posteriors under ``SOURCE`` of a mixture of normals, with labels from ``prior``."""
    generator = np.random.default_rng(seed)
    means = 1.5 * np.eye(7)
    targets = generator.choice(7, size=num_images, p=prior)
    points = means[targets] + generator.normal(size=(num_images, 7))
    logits = points @ means.T - (means**2).sum(axis=1) / 2 + np.log(SOURCE)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), targets


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_ends_of_a_long_tail_are_a_factor_apart(direction: str) -> None:
    prior = priors.long_tailed_prior(COUNTS, factor=25, direction=direction)  # type: ignore[arg-type]
    head, tail = (0, -1) if direction == "forward" else (-1, 0)
    assert prior.sum() == pytest.approx(1)
    assert prior[head] / prior[tail] == pytest.approx(25)
    assert np.allclose(prior[:-1] / prior[1:], prior[0] / prior[1])


def test_accuracy_under_a_prior_is_scikit_learns_with_weights() -> None:
    logits, targets = drawn()
    prior = priors.long_tailed_prior(COUNTS, factor=10, direction="backward")
    predicted, images = logits.argmax(axis=1), np.bincount(targets)
    recall = np.bincount(targets[predicted == targets], minlength=7) / images
    found = priors.accuracy_under(recall, images, prior)
    weights = (prior / images)[targets]
    assert found.value == pytest.approx(accuracy_score(targets, predicted, sample_weight=weights))
    assert found.effective_images == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


def test_the_standard_error_is_the_spread_over_drawn_test_sets() -> None:
    generator = np.random.default_rng(0)
    recall, images = np.linspace(0.9, 0.3, 7), np.full(7, 30)
    prior = priors.long_tailed_prior(COUNTS, factor=10, direction="forward")
    values = [
        priors.accuracy_under(generator.binomial(images, recall) / images, images, prior).value
        for _ in range(1000)
    ]
    found = priors.accuracy_under(recall, images, prior)
    assert found.error == pytest.approx(np.std(values), rel=0.06)


def test_the_standard_error_over_groups_is_the_spread_over_drawn_groups() -> None:
    generator = np.random.default_rng(0)
    prior = priors.long_tailed_prior(COUNTS[:3], factor=4, direction="backward")

    def accuracy(seed: int) -> priors.Accuracy:
        own = np.random.default_rng(seed)
        groups = np.repeat(np.arange(40), 12)
        targets = own.integers(0, 3, len(groups))
        correct = own.normal(size=40)[groups] + own.normal(size=len(groups)) > 0
        images = np.bincount(targets, minlength=3)
        recall = np.bincount(targets[correct], minlength=3) / images
        residuals = priors.residuals_of(correct, recall, targets, groups)
        return priors.accuracy_under(recall, images, prior, residuals=residuals)

    found = [accuracy(int(seed)) for seed in generator.integers(2**31, size=400)]
    spread = np.std([own.value for own in found])
    assert np.mean([own.error for own in found]) == pytest.approx(spread, rel=0.1)


def test_the_standard_error_over_groups_of_one_image_is_that_over_images() -> None:
    logits, targets = drawn()
    prior = priors.long_tailed_prior(COUNTS, factor=10, direction="backward")
    correct, images = logits.argmax(axis=1) == targets, np.bincount(targets)
    recall = np.bincount(targets[correct], minlength=7) / images
    alone = priors.residuals_of(correct, recall, targets, np.arange(420))
    found = priors.accuracy_under(recall, images, prior, residuals=alone)
    expected = priors.accuracy_under(recall, images, prior).error * np.sqrt(420 / 419)
    assert found.error == pytest.approx(expected)
    together = priors.residuals_of(correct, recall, targets, np.zeros(420, dtype=int))
    found = priors.accuracy_under(recall, images, prior, residuals=together)
    assert found.error == pytest.approx(np.sqrt(found.value * (1 - found.value)))


def test_em_finds_the_likelihoods_maximum() -> None:
    truth = SOURCE[::-1].copy()
    logits, _ = shifted_sample(truth, 1500, seed=0)
    found = priors.estimate_by_em(logits, SOURCE)
    assert found.has_converged
    ratio = np.exp(logits) / SOURCE
    # Saerens et al. (2002), equation 2.9, one step at a time, to the end.
    prior = SOURCE.copy()
    for _ in range(3000):
        posterior = ratio * prior
        prior = (posterior / posterior.sum(axis=1, keepdims=True)).mean(axis=0)
    assert np.abs(found.prior - prior).sum() < 1e-5
    assert np.abs(found.prior - truth).sum() / 2 < 0.04


def test_weighted_images_are_estimated_as_a_drawn_sample_is() -> None:
    logits, targets = shifted_sample(np.full(7, 1 / 7), 2100, seed=1)
    truth = priors.long_tailed_prior(COUNTS, factor=20, direction="backward")
    weights = (truth / np.bincount(targets))[targets]
    both = priors.estimate_by_em(logits, SOURCE, weights=np.stack([weights, np.ones(2100)]))
    assert np.abs(both.prior[0] - truth).sum() / 2 < 0.04
    alone = priors.estimate_by_em(logits, SOURCE)
    assert np.abs(both.prior[1] - alone.prior).sum() < 1e-8
    assert both.iterations[1] == alone.iterations != both.iterations[0]


def test_bbse_finds_the_prior_from_predictions_alone() -> None:
    truth = SOURCE[::-1].copy()
    held_out, labels = shifted_sample(np.full(7, 1 / 7), 3500, seed=2)
    logits, _ = shifted_sample(truth, 3500, seed=3)
    seen = np.bincount(logits.argmax(axis=1), minlength=7) / len(logits)
    found = priors.estimate_by_confusion(held_out.argmax(axis=1), labels, seen, source_prior=SOURCE)
    assert found.sum() == pytest.approx(1)
    # A step from the predicted shares, which favour the head, to the true ones.
    assert np.abs(found - truth).sum() < 0.5 * np.abs(seen - truth).sum()


def test_bbse_is_exact_where_the_predicted_shares_are() -> None:
    held_out, labels = shifted_sample(np.full(7, 1 / 7), 700, seed=4)
    predicted = held_out.argmax(axis=1)
    truth = np.array([0.3, 0.05, 0.05, 0.1, 0.1, 0.2, 0.2])
    rates = np.stack([np.bincount(predicted[labels == c], minlength=7) for c in range(7)], axis=1)
    seen = rates / rates.sum(axis=0) @ truth
    found = priors.estimate_by_confusion(predicted, labels, seen, source_prior=SOURCE)
    assert found == pytest.approx(truth, abs=1e-9)


def test_the_true_prior_makes_the_bayes_decision() -> None:
    truth = SOURCE[::-1].copy()
    logits, targets = shifted_sample(truth, 500, seed=5)
    found = priors.shifted(logits, targets, source=SOURCE, target=truth)
    decided = (np.exp(logits) * truth / SOURCE).argmax(axis=1)
    slow = [(decided[targets == c] == c).mean() for c in range(7)]
    assert found == pytest.approx(slow)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ([], None),
        (["loss=softmax_focal"], None),
        (["loss=softmax_focal", "loss.alpha=[1, 1, 1]"], None),
        (["loss=softmax_focal", "loss.alpha=[1, 2, 3]"], "loss.alpha"),
        (["loss=binary_cross_entropy", "loss.pos_weight={a: 1, b: 5}"], "loss.pos_weight"),
        (["loss=balanced_softmax"], "loss=balanced_softmax"),
        (["reweight=inverse"], "reweight=inverse"),
        (["sampler=class_balanced"], "sampler=class_balanced"),
    ],
)
def test_training_that_changes_the_prior_of_the_probabilities_is_named(
    words: list[str], key: str | None
) -> None:
    assert balanced_by(load(overrides=words)) == key
