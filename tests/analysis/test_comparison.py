"""Two classifiers on the same images, and what the tail is taken for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, recall_score

from engine.analysis import comparison, confusions
from engine.analysis.scaling import confidences
from engine.training.metrics import few_shot_groups
from tests.analysis._drawn import COUNTS, drawn


def test_mcnemars_p_value_is_that_of_the_binomial_test() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.random(200) < 0.8, generator.random(200) < 0.7
    found = comparison.mcnemar(first, second)
    assert found.only_first + found.only_second == (first != second).sum()
    expected = binomtest(found.only_first, found.only_first + found.only_second).pvalue
    assert found.p == pytest.approx(expected)


def test_two_equal_classifiers_do_not_differ() -> None:
    right = np.array([True, False, True])
    assert comparison.mcnemar(right, right).p == 1


def test_the_difference_is_scikit_learns_and_its_interval_that_of_drawn_images() -> None:
    targets = drawn(210).targets
    ours, theirs = drawn(210, seed=1).logits.argmax(1), drawn(210, seed=2).logits.argmax(1)
    classes = np.ones(7, dtype=bool)
    right = ours == targets, theirs == targets
    found = comparison.recall_difference(*right, targets, classes=classes)
    assert found is not None
    means = [recall_score(targets, labels, average="macro") for labels in (theirs, ours)]
    assert found.value == pytest.approx(means[0] - means[1])
    generator = np.random.default_rng(0)
    change = (theirs == targets).astype(float) - (ours == targets)
    drawn_values = [
        np.mean([generator.choice(change[targets == c], 30).mean() for c in range(7)])
        for _ in range(800)
    ]
    low, high = np.quantile(drawn_values, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.015)


def test_a_group_without_images_has_no_difference() -> None:
    right, targets = np.array([True, False]), np.array([0, 1])
    none = np.array([False, False, True])
    assert comparison.recall_difference(right, right, targets, classes=none) is None


def test_confusions_are_scikit_learns_matrix() -> None:
    logits, targets = drawn()
    predicted = logits.argmax(axis=1)
    found = confusions.confusion_counts(targets, predicted, num_classes=7)
    assert (found == confusion_matrix(targets, predicted)).all()


def test_only_images_taken_for_a_more_frequent_class_go_towards_the_head() -> None:
    counts = np.array([[8, 2, 0], [3, 6, 1], [5, 0, 5]])
    found = confusions.towards_the_head(counts, np.array([100, 10, 5]))
    assert [(row.true, row.predicted, row.images) for row in found] == [(2, 0, 5), (1, 0, 3)]
    assert found[0].share == 0.5


def test_every_image_of_a_group_is_right_or_goes_to_some_group() -> None:
    logits, targets = drawn()
    predicted = logits.argmax(axis=1)
    counts = confusions.confusion_counts(targets, predicted, num_classes=7)
    found = confusions.between_groups(counts, few_shot_groups(COUNTS))
    assert all(row.sum() == pytest.approx(1) for row in found.values())
    few, many = np.isin(targets, [5, 6]), np.isin(predicted, [0, 1])
    assert found["few"][1] == pytest.approx(many[few].mean())


def test_the_surest_mistakes_are_wrong_and_in_order() -> None:
    logits, targets = drawn()
    found = confidences(logits, targets)
    places = confusions.surest_mistakes(found, targets, most=5)
    assert (found.predicted[places] != targets[places]).all()
    wrong = np.sort(found.confidence[found.predicted != targets])[::-1]
    assert found.confidence[places].tolist() == wrong[:5].tolist()
