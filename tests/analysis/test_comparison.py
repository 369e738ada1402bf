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


def grouped(num_groups: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups of 30 images that two classifiers, equal in expectation, tend to get right at once."""
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(num_groups), 30)
    ease = generator.normal(0.5, 1, size=(2, num_groups))[:, groups]
    right = ease + generator.normal(size=ease.shape) > 0
    return groups, right[0], right[1]


def test_an_interval_over_groups_is_that_of_groups_drawn_again() -> None:
    groups, first, second = grouped(40)
    targets = np.random.default_rng(1).integers(0, 3, len(groups))
    masks = {"two": np.array([True, False, True])}
    found = comparison.recall_differences(first, second, targets, masks=masks, groups=groups)["two"]
    plain = comparison.recall_differences(first, second, targets, masks=masks)["two"]
    assert found is not None and plain is not None
    assert found.value == pytest.approx(plain.value)
    generator = np.random.default_rng(2)
    drawn_values = []
    for _ in range(800):
        again = np.concatenate([np.flatnonzero(groups == g) for g in generator.integers(0, 40, 40)])
        change = second[again].astype(float) - first[again]
        drawn_values.append(np.mean([change[targets[again] == c].mean() for c in (0, 2)]))
    low, high = np.quantile(drawn_values, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)
    assert found.high - found.low > 1.5 * (plain.high - plain.low)


def test_intervals_over_few_groups_hold_a_difference_of_0_nineteen_times_of_twenty() -> None:
    held = []
    for seed in range(100):
        groups, first, second = grouped(8, seed=seed)
        found = comparison.accuracy_difference(first, second, groups)
        held.append(found.low <= 0 <= found.high)
    assert np.mean(held) >= 0.91


def test_one_group_says_nothing_of_the_next_and_equal_answers_differ_by_0() -> None:
    right, wrong = np.ones(6, dtype=bool), np.zeros(6, dtype=bool)
    one, three = np.zeros(6, dtype=int), np.arange(6) // 2
    assert comparison.accuracy_difference(wrong, right, one) == (1, -1, 1)
    assert comparison.accuracy_difference(right, right, three) == (0, 0, 0)


def test_groups_that_all_change_alike_leave_wilsons_share_to_others() -> None:
    from scipy.stats import binomtest

    right, wrong, groups = np.ones(24, bool), np.zeros(24, bool), np.arange(24) // 2
    found = comparison.accuracy_difference(wrong, right, groups)
    unseen = binomtest(0, 12).proportion_ci(method="wilson").high
    assert (found.low, found.high) == pytest.approx((1 - 2 * unseen, 1))


def test_a_group_without_images_has_no_difference() -> None:
    right, targets = np.array([True, False]), np.array([0, 1])
    none = np.array([False, False, True])
    assert comparison.recall_difference(right, right, targets, classes=none) is None
    for groups in (None, np.array([4, 4])):
        found = comparison.recall_differences(
            right, right, targets, masks={"few": none}, groups=groups
        )
        assert found == {"few": None}


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
