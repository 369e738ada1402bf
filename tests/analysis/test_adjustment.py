"""The curve over tau: scikit-learn scores every point of it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, recall_score

from engine.analysis.adjustment import TauCurve, tau_curve
from engine.analysis.blocks import argmax_along, blocks
from tests.analysis._drawn import COUNTS, drawn


def test_every_point_of_the_curve_is_scikit_learns_balanced_accuracy() -> None:
    logits, targets = drawn()
    taus = np.linspace(-1, 3, 9)
    curve = tau_curve(logits, targets, COUNTS, taus=taus)
    for tau, value in zip(taus, curve.of("balanced"), strict=True):
        predicted = (logits - tau * np.log(COUNTS / COUNTS.sum())).argmax(axis=1)
        assert value == pytest.approx(balanced_accuracy_score(targets, predicted), abs=1e-12)


def test_groups_are_means_of_scikit_learns_recalls() -> None:
    logits, targets = drawn()
    curve = tau_curve(logits, targets, COUNTS, taus=np.array([0.5]))
    predicted = (logits - 0.5 * np.log(COUNTS / COUNTS.sum())).argmax(axis=1)
    recall = recall_score(targets, predicted, average=None)
    for group, labels in {"many": [0, 1], "medium": [2, 3, 4], "few": [5, 6]}.items():
        assert curve.of(group)[0] == pytest.approx(recall[labels].mean(), abs=1e-12)


def test_a_model_that_carries_the_prior_is_best_with_it_taken_out() -> None:
    logits, targets = drawn(2100)
    curve = tau_curve(logits, targets, COUNTS)
    # The prior enters the drawn logits with weight 2 x 0.7.
    assert 1.0 <= curve.taus[curve.best()] <= 1.8


def test_of_equally_good_taus_the_one_nearest_to_zero_is_chosen() -> None:
    recall = np.array([[0.5], [0.75], [0.75], [0.75]])
    curve = TauCurve(np.array([-2.0, -1.0, 0.5, 2.0]), recall, np.array([9]))
    assert curve.taus[curve.best()] == 0.5


def test_a_group_without_classes_has_no_number() -> None:
    logits, targets = drawn()
    many = np.full(len(COUNTS), 200)
    assert tau_curve(logits, targets, many, taus=np.array([0.0])).of("few") == [None]


def test_a_class_without_test_images_is_left_out_of_the_mean() -> None:
    logits, targets = drawn()
    kept = targets != 3
    curve = tau_curve(logits[kept], targets[kept], COUNTS, taus=np.array([0.0]))
    recall = [(logits[targets == c].argmax(axis=1) == c).mean() for c in range(7) if c != 3]
    assert curve.of("balanced")[0] == pytest.approx(np.mean(recall))


def test_blocks_cover_all_rows_once_and_in_order() -> None:
    array = np.zeros((1000, 2**12))
    rows = [row for part in blocks(array) for row in range(part.start, part.stop)]
    assert rows == list(range(1000))
    assert len(list(blocks(array))) > 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": np.zeros(3, dtype=int)}, "targets: expected"),
        ({"targets": np.full(420, 7)}, "labels from 0 to 6"),
        ({"class_counts": np.ones(6)}, "class_counts: expected"),
        ({"class_counts": np.zeros(7)}, "not all of them 0"),
        ({"logits": np.full((420, 7), np.nan)}, "finite"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(
    changes: dict[str, np.ndarray], said: str
) -> None:
    logits, targets = drawn()
    given = {"logits": logits, "targets": targets, "class_counts": COUNTS} | changes
    with pytest.raises(ValueError, match=said):
        tau_curve(given["logits"], given["targets"], given["class_counts"])


def test_looking_only_where_the_class_changes_finds_the_class_of_every_tau() -> None:
    # Whole numbers tie often, and equal counts have equal offsets.
    counts = np.array([640, 160, 160, 40, 10, 10, 10])
    logits = np.random.default_rng(0).integers(-4, 4, size=(400, 7)).astype(np.float64)
    offsets = np.linspace(-1, 3, 33)[:, None] * -np.log2(counts / 10)
    each = np.stack([(logits + offset).argmax(axis=1) for offset in offsets])
    assert len(np.unique(each, axis=0)) > 10
    np.testing.assert_array_equal(argmax_along(logits, offsets), each)
    np.testing.assert_array_equal(argmax_along(logits, offsets[:1]), each[:1])
