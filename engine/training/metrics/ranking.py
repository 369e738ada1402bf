"""Quality of the order of the probabilities: top-5 accuracy, AUROC, average precision, thresholds.

`probabilities` is (N, C), `targets` (N,). In a binary task (C = 2) class 1 is the positive one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.training.metrics.rows import ArrayInBlocks, RowScores

MAX_RANKED = 20_000_000
"""Most entries N x C for which every class is ranked: beyond, sorting each column takes minutes."""

NUM_DRAWS, MAX_DRAWN = 200, 2_000_000
"""Bootstrap draws over which a threshold is averaged, and the most samples that they have."""


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
    return share_within(RowScores.of(ArrayInBlocks(probabilities), targets).num_ahead, k=k)


def share_within(num_ahead: npt.NDArray[np.integer], *, k: int) -> float:
    """Return the same of the number of classes that rank before each sample's true one (N,)."""
    return int((num_ahead < k).sum()) / len(num_ahead)


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
    probabilities: npt.NDArray[np.floating],
    targets: npt.NDArray[np.integer],
    *,
    prior_counts: npt.NDArray[np.integer] | None = None,
) -> float:
    """Threshold on the probability of class 1 with the best F1, for binary `probabilities` (N, 2).

    A sample is positive when its probability is at or above the threshold; the candidates are the
    probabilities that occur. On a tie the highest threshold wins: the fewest alarms for the same
    F1. Choose it on validation, never on test. Without a positive sample no F1 exists and the
    answer is 0.5; with a non-finite probability it is NaN.

    F1 depends on how frequent the positives are: a threshold with the best F1 where every second
    sample is positive is too low where one in ten is.

    Args:
        probabilities: (N, 2).
        targets: (N,) 0 or 1.
        prior_counts: (2,) negatives and positives where the threshold will be used; the samples
            are weighed to that ratio. None takes them as they are.

    >>> best_threshold(np.array([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4]]), np.array([0, 1, 1]))
    0.3
    """
    assert probabilities.shape == (len(targets), 2), probabilities.shape
    scores = probabilities[:, 1]
    if not np.isfinite(scores).all():
        return float("nan")
    if not (targets == 1).any():
        return 0.5
    tp, fp, thresholds = _count_at_thresholds(targets == 1, scores)
    f1 = 2 * tp / (tp + _weight_of_negatives(targets, prior_counts) * fp + tp[-1])
    return float(thresholds[f1.argmax()])


def bagged_threshold(
    probabilities: npt.NDArray[np.floating],
    targets: npt.NDArray[np.integer],
    *,
    prior_counts: npt.NDArray[np.integer] | None = None,
) -> float:
    """Return the mean of the thresholds with the best F1 on 200 bootstrap draws, or of 0.5.

    On a few dozen samples the best F1 is often that of a single score above a wide gap. Here each
    draw's threshold is the middle between that score and the next lower one. Where it has a lower
    F1 than 0.5 on the samples that the draw left out, 0.5 counts in its place. The mean over draws
    depends on more scores than one (Breiman 1996, "Bagging Predictors" and "Out-of-bag
    estimation"). Beyond 10,000 samples, where one draw is as good as another, there are fewer
    draws. Positives and negatives are drawn apart, as many as there are, with a fixed seed. Without
    a positive sample the answer is 0.5; with a non-finite probability it is NaN.

    Args:
        probabilities: (N, 2).
        targets: (N,) 0 or 1.
        prior_counts: As for `best_threshold`.
    """
    assert probabilities.shape == (len(targets), 2), probabilities.shape
    order = np.argsort(-probabilities[:, 1], kind="stable")
    scores, positive = probabilities[order, 1], targets[order] == 1
    if not np.isfinite(scores).all():
        return float("nan")
    if not positive.any():
        return 0.5
    weight, total = _weight_of_negatives(targets, prior_counts), positive.sum()
    negatives = (len(scores) - total) / total
    ends = np.flatnonzero(np.append(np.diff(scores), -1.0))  # the last of each distinct score
    is_above = scores >= 0.5
    generator, found = np.random.default_rng(0), []
    for _ in range(max(1, min(NUM_DRAWS, MAX_DRAWN // len(scores)))):
        times = np.empty(len(scores))
        for group in (positive, ~positive):
            size = int(group.sum())
            drawn = generator.integers(max(size, 1), size=size)
            times[group] = np.bincount(drawn, minlength=size)
        tp = np.cumsum(times * positive)[ends]
        fp = np.cumsum(times * ~positive)[ends]
        best = ends[(2 * tp / (tp + weight * fp + total)).argmax()]
        below = np.flatnonzero(times[best + 1 :])
        lower = scores[best + 1 + below[0]] if below.size else scores[best]
        threshold = (scores[best] + lower) / 2
        left_out = times == 0
        f1 = [
            _f1_of_shares(called[left_out], positive[left_out], negatives=weight * negatives)
            for called in (scores >= threshold, is_above)
        ]
        found.append(threshold if f1[0] >= f1[1] else 0.5)
    return float(np.mean(found, dtype=np.float64))


def _f1_of_shares(
    called: npt.NDArray[np.bool_], positive: npt.NDArray[np.bool_], *, negatives: float
) -> float:
    """Return the F1 of calls where there are so many negatives to a positive; 0 if none is there.

    Args:
        called: (N,) which samples are called positive.
        positive: (N,) which are.
        negatives: as many to one positive; the samples say only which share of either is called.
    """
    hits, alarms = called[positive], called[~positive]
    if not hits.size or (not alarms.size and negatives > 0):
        return 0.0
    true, false = hits.mean(), negatives * alarms.mean() if alarms.size else 0.0
    return float(2 * true / (1 + true + false))


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


def _weight_of_negatives(
    targets: npt.NDArray[np.integer], prior_counts: npt.NDArray[np.integer] | None
) -> float:
    """Weight of a negative sample, a positive one's being 1, to be as frequent as in the prior."""
    negatives, positives = np.bincount(targets, minlength=2).tolist()
    if prior_counts is None or negatives == 0 or prior_counts[1] == 0:
        return 1.0
    return float(prior_counts[0] * positives / (prior_counts[1] * negatives))


class _AtThresholds(NamedTuple):
    """What scores at or above each distinct score call positive, the highest first."""

    true_positives: npt.NDArray[np.int64]
    false_positives: npt.NDArray[np.int64]
    thresholds: npt.NDArray[np.floating]


def _count_at_thresholds(
    positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]
) -> _AtThresholds:
    """Count as `sklearn.metrics.confusion_matrix_at_thresholds` does, without its import."""
    order = np.argsort(-scores, kind="stable")
    descending = scores[order]
    ends = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))
    true_positives = np.cumsum(positive[order], dtype=np.int64)[ends]
    return _AtThresholds(true_positives, 1 + ends - true_positives, descending[ends])


def _rank_one(
    positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.floating]
) -> tuple[float, float]:
    """Return AUROC and average precision of one class; one sort serves both."""
    tp, fp, _ = _count_at_thresholds(positive, scores)
    tp, fp = np.append(0.0, tp), np.append(0.0, fp)
    auroc = np.trapezoid(tp, fp) / (tp[-1] * fp[-1])
    average_precision = np.diff(tp) @ (tp[1:] / (tp[1:] + fp[1:])) / tp[-1]
    return float(auroc), float(average_precision)
