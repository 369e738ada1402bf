"""Quality of the order of the probabilities: top-5 accuracy, AUROC, average precision, thresholds.

`probabilities` is (N, C), `targets` (N,). In a binary task (C = 2) class 1 is the positive one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MAX_RANKED = 20_000_000
"""Most entries N x C for which every class is ranked: beyond, sorting each column takes minutes."""

_CHUNK_ENTRIES = 2**20


class RankingScores(NamedTuple):
    """AUROC and average precision; None where no class has both labels or N x C is too large."""

    auroc: float | None
    average_precision: float | None


def top_k_accuracy(
    probabilities: npt.NDArray[np.floating], targets: npt.NDArray[np.integer], *, k: int
) -> float:
    """Return the share of samples whose true class is among the k most probable, k >= 1.

    Equal probabilities rank by class index, lowest first, so that k = 1 is the accuracy of the
    arg max and a constant prediction earns no more than chance.

    >>> top_k_accuracy(np.array([[0.2, 0.5, 0.3]]), np.array([2]), k=2)
    1.0
    """
    hits = 0
    num_samples, num_classes = len(targets), probabilities.shape[1]
    classes = np.arange(num_classes)
    # In chunks: the comparisons of all rows at once would be as large as the probabilities.
    step = max(1, _CHUNK_ENTRIES // num_classes)
    for start in range(0, num_samples, step):
        rows, true = probabilities[start : start + step], targets[start : start + step, None]
        of_true = np.take_along_axis(rows, true, axis=1)
        ahead = (rows > of_true) | ((rows == of_true) & (classes < true))
        hits += int((ahead.sum(axis=1) < k).sum())
    return hits / num_samples


def ranking_scores(
    probabilities: npt.NDArray[np.floating], targets: npt.NDArray[np.integer]
) -> RankingScores:
    """Return AUROC and average precision: of class 1 for C = 2, else the one-vs-rest mean.

    AUROC is the area under the ROC curve (trapezoids: a tie counts one half); average precision is
    sum_k (R_k - R_{k-1}) P_k over the distinct thresholds, without interpolation, as in
    `sklearn.metrics.average_precision_score`. Classes without a positive or without a negative
    sample have neither and are left out.

    >>> ranking_scores(np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]]), np.array([0, 1, 1]))
    RankingScores(auroc=1.0, average_precision=1.0)
    """
    num_samples, num_classes = probabilities.shape
    if probabilities.size > MAX_RANKED:
        return RankingScores(None, None)
    positives = np.bincount(targets, minlength=num_classes)
    rankable = np.flatnonzero((positives > 0) & (positives < num_samples))
    if num_classes == 2:
        rankable = rankable[rankable == 1]
    if rankable.size == 0:
        return RankingScores(None, None)
    scores = np.array([_rank_one(targets == c, probabilities[:, c]) for c in rankable])
    auroc, average_precision = scores.mean(axis=0)
    return RankingScores(float(auroc), float(average_precision))


def best_threshold(
    probabilities: npt.NDArray[np.floating], targets: npt.NDArray[np.integer]
) -> float:
    """Threshold on the probability of class 1 with the best F1, for binary `probabilities` (N, 2).

    A sample is positive when its probability is at or above the threshold; the candidates are the
    probabilities that occur. On a tie the highest threshold wins: the fewest alarms for the same
    F1. Choose it on validation, never on test. Without a positive sample no F1 exists and the
    answer is 0.5; with a non-finite probability it is NaN.

    >>> best_threshold(np.array([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4]]), np.array([0, 1, 1]))
    0.3
    """
    from sklearn.metrics import confusion_matrix_at_thresholds

    assert probabilities.shape == (len(targets), 2), probabilities.shape
    scores = probabilities[:, 1]
    if not np.isfinite(scores).all():
        return float("nan")
    if not (targets == 1).any():
        return 0.5
    _, fp, fn, tp, thresholds = confusion_matrix_at_thresholds(targets == 1, scores)
    f1 = 2 * tp / (2 * tp + fp + fn)
    return float(thresholds[f1.argmax()])


def f1_at_threshold(
    probabilities: npt.NDArray[np.floating],
    targets: npt.NDArray[np.integer],
    *,
    threshold: float,
) -> float | None:
    """Return the F1 of class 1 when its probability at or above `threshold` means positive.

    None where no sample is positive and none is called so; NaN for a NaN threshold.

    >>> round(f1_at_threshold(np.array([[0.9, 0.1], [0.7, 0.3]]), np.array([0, 1]), threshold=0), 4)
    0.6667
    """
    assert probabilities.shape == (len(targets), 2), probabilities.shape
    if np.isnan(threshold):
        return float("nan")
    called, positive = probabilities[:, 1] >= threshold, targets == 1
    total = int(called.sum() + positive.sum())
    return 2 * int((called & positive).sum()) / total if total else None


def _rank_one(
    positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]
) -> tuple[float, float]:
    """Return AUROC and average precision of one class; one sort serves both."""
    from sklearn.metrics import confusion_matrix_at_thresholds

    _, fp, _, tp, _ = confusion_matrix_at_thresholds(positive, scores)
    tp, fp = np.append(0.0, tp), np.append(0.0, fp)
    auroc = np.trapezoid(tp, fp) / (tp[-1] * fp[-1])
    average_precision = np.diff(tp) @ (tp[1:] / (tp[1:] + fp[1:])) / tp[-1]
    return float(auroc), float(average_precision)
