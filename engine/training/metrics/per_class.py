"""What was predicted for what: precision, recall and F1 of each class, MCC, confusion matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DENSE_CLASSES = 1000
"""Most classes for which a dense C x C confusion matrix is made."""


@dataclass(frozen=True, eq=False)
class PerClass:
    """Scores of each class, arrays of shape (C,); NaN where the fraction is 0 / 0.

    Attributes:
        precision: Correct / predicted as the class; NaN for a class that was never predicted.
        recall: Correct / images of the class; NaN for a class without test images.
        f1: 2 * correct / (images + predicted); NaN only where both are 0.
        support: Images of the class, an integer array.
    """

    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    f1: npt.NDArray[np.float64]
    support: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Everything that the pairs (true class, predicted class) determine.

    Attributes:
        per_class: Precision, recall, F1 and support.
        mcc: Matthews correlation coefficient in [-1, 1]; 0 by convention where a side is constant.
        confusion: (C, C) counts, rows = true class, up to `DENSE_CLASSES` classes; None beyond.
    """

    per_class: PerClass
    mcc: float
    confusion: npt.NDArray[np.int64] | None


def count_outcomes(
    targets: npt.NDArray[np.integer], predictions: npt.NDArray[np.integer], *, num_classes: int
) -> Outcomes:
    """Score predicted against true classes, both (N,), with memory O(N + C) beyond 1,000 classes.

    Precision, recall and F1 are those of `sklearn.metrics.precision_recall_fscore_support`; MCC is
    Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient".

    >>> outcomes = count_outcomes(np.array([0, 0, 1]), np.array([0, 1, 1]), num_classes=2)
    >>> outcomes.per_class.recall.tolist(), outcomes.mcc
    ([0.5, 1.0], 0.5)
    """
    support = np.bincount(targets, minlength=num_classes)
    predicted = np.bincount(predictions, minlength=num_classes)
    correct = np.bincount(targets[targets == predictions], minlength=num_classes)
    per_class = PerClass(
        precision=_ratio(correct, predicted),
        recall=_ratio(correct, support),
        f1=_ratio(2 * correct, support + predicted),
        support=support,
    )
    mcc = _matthews(correct, support=support, predicted=predicted)
    return Outcomes(per_class, mcc, _confusion(targets, predictions, num_classes=num_classes))


def _confusion(
    targets: npt.NDArray[np.integer], predictions: npt.NDArray[np.integer], *, num_classes: int
) -> npt.NDArray[np.int64] | None:
    if num_classes > DENSE_CLASSES:
        return None
    pairs = targets.astype(np.int64) * num_classes + predictions
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def _ratio(
    numerator: npt.NDArray[np.int64], denominator: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    ratio = np.full(len(denominator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio


def _matthews(
    correct: npt.NDArray[np.int64],
    *,
    support: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
) -> float:
    # Floats before squaring: the product of two N^2 overflows 64-bit integers from N = 55,000 on.
    truth, guess = support.astype(np.float64), predicted.astype(np.float64)
    total = truth.sum()
    covariance = float(correct.sum() * total - truth @ guess)
    variances = float((total**2 - guess @ guess) * (total**2 - truth @ truth))
    return covariance / math.sqrt(variances) if variances > 0 else 0.0
