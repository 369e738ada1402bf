"""Metrics against scikit-learn and against slow loops."""

import math
import subprocess
import sys
import tracemalloc
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from engine.config.components import ROOT
from engine.training.metrics import Limits, evaluate, few_shot_groups, per_class
from engine.training.summary import class_results


class Sample(NamedTuple):
    probabilities: np.ndarray
    targets: np.ndarray
    class_counts: np.ndarray


def drawn(*, num_samples: int = 300, num_classes: int = 8, seed: int = 0) -> Sample:
    """Random probabilities whose true class is favoured, random targets, long-tailed counts."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(num_classes, size=num_samples)
    logits = rng.normal(size=(num_samples, num_classes))
    logits[np.arange(num_samples), targets] += 1.0
    exponentials = np.exp(logits)
    counts = np.geomspace(500, 5, num_classes).astype(int)
    return Sample(exponentials / exponentials.sum(axis=1, keepdims=True), targets, counts)


def one_hot(predictions: np.ndarray, *, num_classes: int) -> np.ndarray:
    return np.eye(num_classes, dtype=np.float32)[predictions]


def slow_recalls(
    predictions: np.ndarray, targets: np.ndarray, *, num_classes: int
) -> list[float | None]:
    """Recall of each class by a loop over samples; None without test images."""
    recalls = []
    for c in range(num_classes):
        hits = [p == c for p, t in zip(predictions, targets, strict=True) if t == c]
        recalls.append(sum(hits) / len(hits) if hits else None)
    return recalls


def test_accuracies_f1_and_mcc_equal_those_of_scikit_learn() -> None:
    probabilities, targets, counts = drawn()
    predictions = probabilities.argmax(axis=1)
    scalars = evaluate(probabilities, targets, counts).scalars
    expected = {
        "accuracy": sk.accuracy_score(targets, predictions),
        "balanced_accuracy": sk.balanced_accuracy_score(targets, predictions),
        "macro_f1": sk.f1_score(targets, predictions, average="macro"),
        "mcc": sk.matthews_corrcoef(targets, predictions),
        "top5_accuracy": sk.top_k_accuracy_score(targets, probabilities, k=5),
    }
    assert {name: scalars[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_recall_summaries_equal_a_loop_over_samples() -> None:
    probabilities, targets, counts = drawn()
    recalls = slow_recalls(probabilities.argmax(axis=1), targets, num_classes=8)
    groups = {"many_accuracy": [], "medium_accuracy": [], "few_accuracy": []}
    for recall, count in zip(recalls, counts, strict=True):
        name = "many" if count > 100 else "few" if count < 20 else "medium"
        groups[f"{name}_accuracy"].append(recall)
    expected = {name: sum(values) / len(values) for name, values in groups.items()}
    expected["worst_class_recall"] = min(recalls)
    expected["geometric_mean"] = math.prod(recalls) ** (1 / 8)
    scalars = evaluate(probabilities, targets, counts).scalars
    assert {name: scalars[name] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_per_class_scores_and_confusion_are_those_of_scikit_learn() -> None:
    probabilities, targets, counts = drawn()
    predictions = probabilities.argmax(axis=1)
    metrics = evaluate(probabilities, targets, counts)
    expected = sk.precision_recall_fscore_support(targets, predictions)
    found = metrics.per_class
    np.testing.assert_allclose(
        [found.precision, found.recall, found.f1, found.support], expected, rtol=1e-12
    )
    np.testing.assert_array_equal(metrics.confusion, sk.confusion_matrix(targets, predictions))


def test_rows_of_the_confusion_matrix_are_true_classes() -> None:
    predictions, targets = np.array([1, 1, 0]), np.array([0, 0, 0])
    metrics = evaluate(one_hot(predictions, num_classes=2), targets, np.array([9, 9]))
    assert metrics.confusion.tolist() == [[1, 2], [0, 0]]


@given(
    pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40),
)
def test_counts_give_the_very_values_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    targets, predictions = np.array(pairs).T
    found = per_class.count_outcomes(targets, predictions, num_classes=7)
    labels = np.arange(7)
    expected = sk.precision_recall_fscore_support(
        targets, predictions, labels=labels, zero_division=np.nan
    )
    scores = found.per_class
    for own, other in zip(
        (scores.precision, scores.recall, scores.f1, scores.support), expected, strict=True
    ):
        np.testing.assert_array_equal(own, other)
    confusion = sk.confusion_matrix(targets, predictions, labels=labels)
    np.testing.assert_array_equal(found.confusion, confusion)
    # scikit-learn warns, and returns 0, where a single label fills both arrays.
    is_alone = np.count_nonzero(confusion) == 1
    assert found.mcc == (0.0 if is_alone else sk.matthews_corrcoef(targets, predictions))


@pytest.mark.parametrize(("num_classes", "dense"), [(1000, True), (1001, False)])
def test_confusion_matrix_exists_up_to_a_thousand_classes(num_classes: int, *, dense: bool) -> None:
    probabilities, targets, counts = drawn(num_samples=20, num_classes=num_classes)
    assert (evaluate(probabilities, targets, counts).confusion is not None) == dense


def test_mcc_of_many_samples_does_not_overflow() -> None:
    half = np.repeat([0, 1], 2_000_000)
    found = per_class.count_outcomes(half, half, num_classes=2)
    assert found.mcc == pytest.approx(1.0)


def test_class_without_test_images_leaves_every_mean_over_recalls() -> None:
    targets, predictions = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    metrics = evaluate(one_hot(predictions, num_classes=3), targets, np.array([200, 150, 120]))
    assert np.isnan(metrics.per_class.recall[2])
    assert metrics.scalars["balanced_accuracy"] == 0.75
    assert metrics.scalars["many_accuracy"] == 0.75
    assert metrics.scalars["worst_class_recall"] == 0.5


def test_class_never_predicted_has_no_precision() -> None:
    targets, predictions = np.array([0, 1]), np.array([0, 0])
    per_class = evaluate(one_hot(predictions, num_classes=2), targets, np.array([9, 9])).per_class
    np.testing.assert_array_equal(per_class.precision, [0.5, np.nan])


def test_macro_f1_counts_a_class_that_is_only_predicted() -> None:
    targets, predictions = np.array([0, 0, 1]), np.array([0, 2, 1])
    metrics = evaluate(one_hot(predictions, num_classes=4), targets, np.full(4, 50))
    assert metrics.scalars["macro_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_empty_group_is_none_and_its_size_zero() -> None:
    probabilities, targets, _ = drawn(num_classes=3)
    metrics = evaluate(probabilities, targets, np.array([500, 300, 19]))
    assert metrics.scalars["medium_accuracy"] is None
    assert metrics.group_sizes == {"many": 2, "medium": 0, "few": 1}


def test_group_whose_classes_have_no_test_images_is_none() -> None:
    metrics = evaluate(np.eye(2), np.array([0, 0]), np.array([500, 3]))
    assert metrics.scalars["few_accuracy"] is None
    assert metrics.group_sizes["few"] == 1


def test_groups_split_at_twenty_and_one_hundred_training_images() -> None:
    groups = few_shot_groups(np.array([101, 100, 20, 19, 0]))
    assert list(groups) == ["many", "medium", "few"]
    assert [np.flatnonzero(mask).tolist() for mask in groups.values()] == [[0], [1, 2], [3]]


def test_groups_split_at_other_limits_where_they_are_given() -> None:
    limits = Limits(many_above=50, few_below=10)
    counts, targets = np.array([51, 50, 10, 9]), np.arange(4)
    groups = few_shot_groups(counts, limits)
    assert [np.flatnonzero(mask).tolist() for mask in groups.values()] == [[0], [1, 2], [3]]
    predicted = one_hot(np.array([0, 0, 2, 3]), num_classes=4)
    metrics = evaluate(predicted, targets, counts, limits=limits)
    assert [metrics.scalars[f"{group}_accuracy"] for group in groups] == [1.0, 0.5, 1.0]
    rows = class_results(metrics, names="abcd", class_counts=counts)
    assert [row.group for row in rows] == ["many", "medium", "medium", "few"]


def test_a_class_without_training_images_is_in_no_group() -> None:
    targets = np.array([0, 1, 2])
    metrics = evaluate(one_hot(targets, num_classes=3), targets, np.array([200, 5, 0]))
    assert metrics.group_sizes == {"many": 1, "medium": 0, "few": 1}
    missed = evaluate(one_hot(targets % 2, num_classes=3), targets, np.array([200, 5, 0]))
    assert missed.scalars["few_accuracy"] == 1.0
    assert missed.scalars["balanced_accuracy"] == pytest.approx(2 / 3)


def test_old_and_new_classes_have_the_mean_recall_of_each() -> None:
    targets, predictions = np.array([0, 0, 1, 2, 3]), np.array([0, 2, 2, 2, 3])
    metrics = evaluate(
        one_hot(predictions, num_classes=5), targets, np.full(5, 50), old_classes=[0, 1, 4]
    )
    assert metrics.scalars["old_accuracy"] == 0.25
    assert metrics.scalars["new_accuracy"] == 1.0
    assert (metrics.group_sizes["old"], metrics.group_sizes["new"]) == (2, 2)


@pytest.mark.parametrize("old_classes", [[], [0, 1], [2]])
def test_old_and_new_are_not_told_apart_where_one_has_no_images(old_classes: list[int]) -> None:
    targets = np.array([0, 1])
    metrics = evaluate(
        one_hot(targets, num_classes=3), targets, np.full(3, 50), old_classes=old_classes
    )
    assert not {"old_accuracy", "new_accuracy"} & metrics.scalars.keys()


def test_geometric_mean_is_zero_when_one_class_is_never_found() -> None:
    predictions, targets = np.array([0, 0, 0]), np.array([0, 0, 1])
    metrics = evaluate(one_hot(predictions, num_classes=2), targets, np.array([9, 9]))
    assert metrics.scalars["geometric_mean"] == 0.0


@pytest.mark.parametrize(("num_classes", "given"), [(5, False), (6, True)])
def test_top5_is_given_where_there_are_more_than_five_classes(
    num_classes: int, *, given: bool
) -> None:
    scalars = evaluate(*drawn(num_classes=num_classes)).scalars
    assert ("top5_accuracy" in scalars) == given


@pytest.mark.parametrize("num_classes", [2, 7])
def test_perfect_predictions_are_perfect_in_every_metric(num_classes: int) -> None:
    targets = np.arange(5 * num_classes) % num_classes
    probabilities = one_hot(targets, num_classes=num_classes)
    counts = np.linspace(500, 2, num_classes).astype(int)
    scalars = evaluate(probabilities, targets, counts, ranking=True).scalars
    losses = {name: scalars.pop(name) for name in ["nll", "brier", "ece"]}
    assert set(losses.values()) == {0.0}
    assert {v for v in scalars.values() if v is not None} == {1.0}


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), num_classes=st.integers(3, 9))
def test_order_of_samples_and_names_of_classes_do_not_matter(seed: int, num_classes: int) -> None:
    probabilities, targets, counts = drawn(num_samples=60, num_classes=num_classes, seed=seed)
    rng = np.random.default_rng(seed)
    samples, classes = rng.permutation(60), rng.permutation(num_classes)
    renamed = np.argsort(classes)[targets]
    moved = evaluate(
        probabilities[samples][:, classes], renamed[samples], counts[classes], ranking=True
    )
    original = evaluate(probabilities, targets, counts, ranking=True)
    assert moved.scalars == pytest.approx(original.scalars, rel=1e-9, abs=1e-12)


def test_binary_f1_is_that_of_class_one() -> None:
    probabilities, targets, _ = drawn(num_classes=2)
    scalars = evaluate(probabilities, targets, np.array([99, 1])).scalars
    assert scalars["f1"] == pytest.approx(sk.f1_score(targets, probabilities.argmax(axis=1)))


def test_f1_is_not_given_for_more_than_two_classes() -> None:
    assert "f1" not in evaluate(*drawn(num_classes=3)).scalars


def test_threshold_adds_the_f1_at_it() -> None:
    probabilities, targets, counts = drawn(num_classes=2)
    metrics = evaluate(probabilities, targets, counts, threshold=0.2)
    expected = sk.f1_score(targets, probabilities[:, 1] >= 0.2)
    assert metrics.scalars["f1_at_threshold"] == pytest.approx(expected)
    assert "f1_at_threshold" not in evaluate(probabilities, targets, counts).scalars


def test_ranking_scores_are_given_on_request_only() -> None:
    probabilities, targets, counts = drawn()
    extra = set(evaluate(probabilities, targets, counts, ranking=True).scalars)
    extra -= set(evaluate(probabilities, targets, counts).scalars)
    assert extra == {"auroc", "average_precision"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_probability_that_is_not_finite_turns_every_number_into_nan(value: float) -> None:
    probabilities, targets, _ = drawn()
    counts = np.full(8, 50)
    probabilities[7, 3] = value
    metrics = evaluate(probabilities, targets, counts, ranking=True)
    scalars = metrics.scalars
    assert scalars.pop("many_accuracy") is None
    assert scalars.pop("few_accuracy") is None
    assert np.isnan(list(scalars.values())).all()
    assert np.isnan(metrics.per_class.recall).all()
    assert metrics.confusion is None


def test_non_finite_probabilities_keep_the_names_and_the_support() -> None:
    probabilities, targets, counts = drawn(num_classes=2)
    sound = evaluate(probabilities, targets, counts, ranking=True, threshold=0.5)
    probabilities[0] = np.nan
    broken = evaluate(probabilities, targets, counts, ranking=True, threshold=0.5)
    assert list(broken.scalars) == list(sound.scalars)
    np.testing.assert_array_equal(broken.per_class.support, sound.per_class.support)


def test_logits_in_place_of_probabilities_are_refused() -> None:
    with pytest.raises(AssertionError, match="rows do not sum to one"):
        evaluate(np.array([[3.0, -1.0]]), np.array([0]), np.array([5, 5]))


def test_float32_and_float64_agree() -> None:
    probabilities, targets, counts = drawn()
    double = evaluate(probabilities, targets, counts, ranking=True).scalars
    single = evaluate(probabilities.astype(np.float32), targets, counts, ranking=True).scalars
    assert single == pytest.approx(double, abs=1e-6)


def test_many_classes_are_evaluated_without_a_copy_of_the_probabilities() -> None:
    num_samples, num_classes = 3000, 2000
    probabilities = np.full((num_samples, num_classes), 1 / num_classes, dtype=np.float32)
    targets = np.arange(num_samples) % num_classes
    tracemalloc.start()
    evaluate(probabilities, targets, np.full(num_classes, 5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < probabilities.nbytes


def test_digits_and_their_metrics_are_had_without_importing_scikit_learn() -> None:
    script = (
        "import sys; import numpy as np; from data.digits import Digits;"
        "from engine.training.metrics import evaluate;"
        "targets = Digits().load().test.targets.numpy();"
        "evaluate(np.eye(10)[targets], targets, np.full(10, 9), ranking=True);"
        "print({'sklearn', 'scipy', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
