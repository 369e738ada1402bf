"""Ranking metrics against scikit-learn and exhaustive search."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from engine.training import logits
from engine.training.metrics import bagged_threshold, best_threshold, ranking
from engine.training.metrics.ranking import f1_at_threshold, ranking_scores, top_k_accuracy
from engine.training.metrics.rows import ArrayInBlocks, RowScores


def drawn(
    *, num_samples: int = 200, num_classes: int = 4, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rounded, hence tied, probabilities."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(num_classes), size=num_samples).round(2)
    probabilities[:, 0] += 1 - probabilities.sum(axis=1)
    return probabilities, rng.integers(num_classes, size=num_samples)


def binary(scores: npt.ArrayLike) -> np.ndarray:
    scores = np.asarray(scores, dtype=float)
    return np.column_stack([1 - scores, scores])


def test_auroc_and_average_precision_are_the_macro_scores_of_scikit_learn() -> None:
    probabilities, targets = drawn()
    found = ranking_scores(probabilities, targets)
    labels = np.eye(4)[targets]
    auroc = sk.roc_auc_score(labels, probabilities, average="macro")
    precision = sk.average_precision_score(labels, probabilities, average="macro")
    assert found == pytest.approx((auroc, precision), rel=1e-12)


def test_binary_scores_are_those_of_class_one() -> None:
    probabilities, targets = drawn(num_classes=2)
    found = ranking_scores(probabilities, targets)
    auroc = sk.roc_auc_score(targets, probabilities[:, 1])
    precision = sk.average_precision_score(targets, probabilities[:, 1])
    assert found == pytest.approx((auroc, precision), rel=1e-12)


def test_auroc_is_the_chance_that_a_positive_outranks_a_negative() -> None:
    scores, targets = np.array([0.1, 0.4, 0.4, 0.8, 0.2]), np.array([0, 0, 1, 1, 1])
    wins = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p in scores[targets == 1]
        for n in scores[targets == 0]
    ]
    assert ranking_scores(binary(scores), targets).auroc == pytest.approx(sum(wins) / len(wins))


def test_classes_without_both_labels_are_left_out() -> None:
    probabilities, targets = drawn()
    targets[targets == 3] = 0
    found = ranking_scores(probabilities, targets)
    expected = [sk.roc_auc_score(targets == c, probabilities[:, c]) for c in range(3)]
    assert found.auroc == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_single_label_in_the_targets_leaves_no_ranking_score(num_classes: int) -> None:
    probabilities, _ = drawn(num_classes=num_classes)
    assert ranking_scores(probabilities, np.ones(200, dtype=int)) == (None, None)


def test_too_many_entries_are_not_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities, targets = drawn()
    monkeypatch.setattr(ranking, "MAX_RANKED", 799)
    assert ranking_scores(probabilities, targets) == (None, None)
    monkeypatch.setattr(ranking, "MAX_RANKED", 800)
    assert ranking_scores(probabilities, targets) != (None, None)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k_accuracy_equals_a_sort_of_every_row(k: int) -> None:
    probabilities, targets = drawn()
    hits = 0
    for row, target in zip(probabilities.tolist(), targets.tolist(), strict=True):
        ranked = sorted(range(4), key=lambda c: (-row[c], c))
        hits += target in ranked[:k]
    assert top_k_accuracy(probabilities, targets, k=k) == hits / 200


def test_top_k_accuracy_does_not_depend_on_the_size_of_a_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probabilities, targets = drawn()
    whole = top_k_accuracy(probabilities, targets, k=2)
    monkeypatch.setattr(logits, "BLOCK_ENTRIES", 29)
    assert top_k_accuracy(probabilities, targets, k=2) == whole


def test_constant_prediction_earns_chance_in_top_five() -> None:
    probabilities = np.full((20, 20), 0.05)
    assert top_k_accuracy(probabilities, np.arange(20), k=5) == 0.25


@given(
    samples=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 1)), min_size=1, max_size=30),
)
def test_best_threshold_has_the_best_f1_of_all_and_is_the_highest_that_has(
    samples: list[tuple[int, int]],
) -> None:
    scores, targets = np.array(samples).T
    targets[0] = 1
    scores = scores / 10
    f1 = {t: sk.f1_score(targets, scores >= t) for t in np.unique(scores)}
    best = max(f1.values())
    expected = max(t for t, value in f1.items() if math.isclose(value, best))
    assert best_threshold(binary(scores), targets) == expected


@given(
    samples=st.lists(st.tuples(st.integers(0, 10), st.integers(0, 1)), min_size=1, max_size=30),
    negatives=st.integers(1, 9),
    positives=st.integers(1, 9),
)
def test_weighing_to_a_prior_is_repeating_samples_until_they_have_its_ratio(
    samples: list[tuple[int, int]], negatives: int, positives: int
) -> None:
    scores, targets = np.array([*samples, (3, 0), (5, 1)]).T
    counts = np.bincount(targets)
    times = np.array([negatives * counts[1], positives * counts[0]])[targets]
    repeated = best_threshold(binary(scores.repeat(times) / 10), targets.repeat(times))
    prior = np.array([negatives, positives])
    found = best_threshold(binary(scores / 10), targets, prior_counts=prior)
    # Which of two equal F1 is larger may be left to rounding.
    weights = np.array([negatives / counts[0], positives / counts[1]])[targets]
    f1 = [
        sk.f1_score(targets, scores / 10 >= threshold, sample_weight=weights)
        for threshold in (found, repeated)
    ]
    assert f1[0] == pytest.approx(f1[1], rel=1e-12)


def test_a_balanced_validation_split_has_too_low_a_threshold_for_a_rare_class() -> None:
    scores = np.array([0.1, 0.3, 0.4, 0.8, 0.2, 0.5, 0.7, 0.9])
    targets = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert best_threshold(binary(scores), targets) == 0.5
    assert best_threshold(binary(scores), targets, prior_counts=np.array([99, 1])) == 0.9


def test_validation_without_negatives_cannot_be_weighed() -> None:
    prior = np.array([9, 1])
    assert best_threshold(binary([0.2, 0.9]), np.array([1, 1]), prior_counts=prior) == 0.2


@pytest.mark.parametrize("size", [7, 2**20])
def test_ties_for_the_top_are_counted_and_no_others(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(logits, "BLOCK_ENTRIES", size)
    probabilities, targets = drawn()
    expected = sum(sorted(row)[-1] == sorted(row)[-2] for row in probabilities.tolist())
    assert 0 < expected < len(probabilities)
    assert RowScores.of(ArrayInBlocks(probabilities), targets).num_ties == expected


def test_best_threshold_without_a_positive_sample_is_one_half() -> None:
    assert best_threshold(binary([0.1, 0.9]), np.array([0, 0])) == 0.5


def test_best_threshold_of_a_non_finite_probability_is_nan() -> None:
    assert math.isnan(best_threshold(binary([0.1, np.nan]), np.array([0, 1])))


def test_a_bagged_threshold_is_the_mean_of_the_best_ones_of_bootstrap_draws() -> None:
    positives = np.linspace(0.3, 0.7, 20) ** 2  # below 0.5, which calls none of them
    scores, targets = np.append(np.full(20, 0.01), positives), np.repeat([0, 1], [20, 20])
    # No negative lies above a positive: the best threshold of a draw is between the negatives and
    # its lowest positive, the k-th of all where none below is drawn, and it is.
    none_below = (1 - np.arange(21) / 20) ** 20
    chances = none_below[:-1] - none_below[1:]
    lowest = chances @ positives
    spread = np.sqrt(chances @ (positives - lowest) ** 2 / 4 / ranking.NUM_DRAWS)
    assert best_threshold(binary(scores), targets) == positives[0]
    found = bagged_threshold(binary(scores), targets)
    assert found == pytest.approx((lowest + 0.01) / 2, abs=4 * spread)


def test_a_single_positive_sample_does_not_have_the_threshold_at_its_own_score() -> None:
    scores, targets = np.repeat([0.1, 0.7], [20, 1]), np.repeat([0, 1], [20, 1])
    assert best_threshold(binary(scores), targets) == 0.7
    assert bagged_threshold(binary(scores), targets) == pytest.approx(0.4, rel=1e-12)


def test_a_threshold_that_is_worse_on_left_out_samples_is_replaced_by_one_half() -> None:
    scores = np.repeat([0.1, 0.45, 0.6, 0.9], [18, 2, 10, 10])
    targets = np.repeat([0, 1], 20)
    # Without the two negatives at 0.45 a draw would choose the middle of 0.1 and 0.6, but they are
    # left out then, and false alarms; with one of them it is the middle of 0.45 and 0.6.
    without = 0.9**20
    spread = 0.025 * np.sqrt(without * (1 - without) / ranking.NUM_DRAWS)
    found = bagged_threshold(binary(scores), targets)
    assert found == pytest.approx(without * 0.5 + (1 - without) * 0.525, abs=4 * spread)


def test_a_bagged_threshold_leaves_one_half_where_it_calls_none_or_all() -> None:
    scores, targets = np.repeat([0.1, 0.2, 0.3, 0.4], 10), np.repeat([0, 0, 1, 1], 10)
    assert bagged_threshold(binary(scores), targets) == pytest.approx(0.25, abs=0.01)
    assert bagged_threshold(binary(scores + 0.5), targets) == pytest.approx(0.75, abs=0.01)


def test_a_bagged_threshold_goes_by_the_prior_and_not_by_the_order_of_the_samples() -> None:
    scores = np.append(np.linspace(0, 0.8, 40), np.linspace(0.2, 1, 40))
    targets, prior = np.repeat([0, 1], 40), np.array([99, 1])
    found = [bagged_threshold(binary(scores), targets, prior_counts=p) for p in (None, prior)]
    assert found[0] < 0.45 < 0.7 < found[1]
    shuffled = np.random.default_rng(0).permutation(80)
    again = bagged_threshold(binary(scores[shuffled]), targets[shuffled], prior_counts=prior)
    assert again == found[1]


def test_a_bagged_threshold_of_samples_that_have_none_is_that_of_the_best() -> None:
    assert bagged_threshold(binary([0.1, 0.9]), np.array([0, 0])) == 0.5
    assert bagged_threshold(binary([0.4, 0.4]), np.array([1, 1])) == pytest.approx(0.4, rel=1e-12)
    assert math.isnan(bagged_threshold(binary([0.1, np.nan]), np.array([0, 1])))


def test_threshold_of_float32_probabilities_includes_its_own_sample() -> None:
    scores = np.array([0.1, 0.3, 0.7], dtype=np.float32)
    probabilities, targets = np.column_stack([1 - scores, scores]), np.array([0, 1, 1])
    threshold = best_threshold(probabilities, targets)
    assert f1_at_threshold(probabilities, targets, threshold=threshold) == 1.0


def test_f1_at_a_threshold_that_calls_nothing_is_zero() -> None:
    assert f1_at_threshold(binary([0.2, 0.3]), np.array([0, 1]), threshold=0.9) == 0.0


def test_f1_without_positives_and_without_calls_is_undefined() -> None:
    assert f1_at_threshold(binary([0.2, 0.3]), np.array([0, 0]), threshold=0.9) is None


def test_f1_at_a_missing_threshold_is_nan() -> None:
    found = f1_at_threshold(binary([0.2]), np.array([1]), threshold=float("nan"))
    assert found is not None
    assert math.isnan(found)
