"""Metrics of one pass of predictions: pure functions of NumPy arrays.

Per-class scores and the confusion matrix come from scikit-learn up to 1,000 classes and, with the
same values, from bincounts beyond (`per_class`); the quality of the probabilities stands in
`calibration`, that of their order in `ranking`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.training.metrics.calibration import brier, nll, reliability
from engine.training.metrics.per_class import Outcomes, PerClass, count_outcomes
from engine.training.metrics.ranking import (
    best_threshold,
    f1_at_threshold,
    ranking_scores,
    top_k_accuracy,
)

__all__ = ["Metrics", "PerClass", "best_threshold", "evaluate", "few_shot_groups"]

MANY_ABOVE = 100
FEW_BELOW = 20


@dataclass(frozen=True, eq=False)
class Metrics:
    """What one pass of predictions is worth.

    Attributes:
        scalars: Value of each metric by name; None where it is undefined, such as the accuracy of
            an empty group.
        per_class: Precision, recall, F1 and support, arrays of shape (C,).
        confusion: (C, C) counts, rows = true class; None beyond 1,000 classes.
        group_sizes: Number of classes in the groups many, medium and few; with old classes in the
            targets, of the old and the new ones, too.
    """

    scalars: dict[str, float | None]
    per_class: PerClass
    confusion: npt.NDArray[np.int64] | None
    group_sizes: dict[str, int]


def few_shot_groups(class_counts: npt.NDArray[np.integer]) -> dict[str, npt.NDArray[np.bool_]]:
    """Masks (C,) of the classes with many (> 100), medium (20..100), few (< 20) training images.

    Liu et al. (2019), "Large-Scale Long-Tailed Recognition in an Open World", section 4. The groups
    are disjoint; a class without training images is in none.

    >>> {name: mask.tolist() for name, mask in few_shot_groups(np.array([101, 100, 19])).items()}
    {'many': [True, False, False], 'medium': [False, True, False], 'few': [False, False, True]}
    """
    many, few = class_counts > MANY_ABOVE, class_counts < FEW_BELOW
    return {"many": many, "medium": ~(many | few), "few": few & (class_counts > 0)}


def evaluate(
    probabilities: npt.NDArray[np.floating],
    targets: npt.NDArray[np.integer],
    class_counts: npt.NDArray[np.integer],
    *,
    old_classes: Sequence[int] = (),
    ranking: bool = False,
    threshold: float | None = None,
) -> Metrics:
    """Every metric of one pass: probabilities (N, C), targets (N,), training counts (C,).

    The predicted class is the arg max, the lowest index on a tie. Scalars, with means over classes
    taken over the classes that have test images:

    * accuracy; top5_accuracy where C > 5.
    * balanced_accuracy, worst_class_recall, geometric_mean: mean, minimum and geometric mean of the
      per-class recalls (0 as soon as one is 0; Kubat and Matwin, 1997).
    * macro_f1: mean F1 over the classes that occur in the targets or the predictions, as
      `sklearn.metrics.f1_score(average="macro")`.
    * many_accuracy, medium_accuracy, few_accuracy: mean recall in each group of `few_shot_groups`;
      on a balanced test set that is the group's accuracy.
    * old_accuracy, new_accuracy: the same for ``old_classes`` and for all others, if there are both
      in the targets.
    * mcc (`per_class`); nll in nats, brier, ece (`calibration`).
    * f1 where C = 2: F1 of class 1 at 0.5, that is by the arg max.

    Where a probability is not finite, every scalar and per-class score that is defined is NaN and
    there is no confusion matrix: a model that diverged shows, it does not score by chance.

    Args:
        probabilities: (N, C) floats, N >= 1, rows that sum to one.
        targets: (N,) integers in [0, C).
        class_counts: (C,) training images of each class; they define the groups.
        old_classes: Labels that an earlier run learnt.
        ranking: Adds auroc and average_precision (None where N x C > 2e7).
        threshold: For C = 2, adds f1_at_threshold: F1 of class 1 when its probability is at or
            above this number. `best_threshold` finds it on validation.
    """
    num_samples, num_classes = probabilities.shape
    assert num_samples > 0 and num_classes > 1, probabilities.shape
    assert targets.shape == (num_samples,), targets.shape
    assert class_counts.shape == (num_classes,), class_counts.shape
    assert targets.min() >= 0 and targets.max() < num_classes, "a target is outside [0, C)"
    assert threshold is None or num_classes == 2, "a threshold is for binary tasks"
    # Minimum and maximum carry NaN and infinity without a temporary of N x C entries.
    if not np.isfinite([probabilities.min(), probabilities.max()]).all():
        uniform = np.broadcast_to(np.float32(1 / num_classes), probabilities.shape)
        stand_in = evaluate(
            uniform,
            targets,
            class_counts,
            old_classes=old_classes,
            ranking=ranking,
            threshold=threshold,
        )
        return _without_values(stand_in)
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 0.02, "rows do not sum to one"

    predictions = probabilities.argmax(axis=1)
    outcomes = count_outcomes(targets, predictions, num_classes=num_classes)
    groups = few_shot_groups(class_counts)
    groups |= _old_and_new(old_classes, support=outcomes.per_class.support)
    scalars: dict[str, float | None] = {"accuracy": float((predictions == targets).mean())}
    if num_classes > 5:
        scalars["top5_accuracy"] = top_k_accuracy(probabilities, targets, k=5)
    scalars |= _outcome_scalars(outcomes, groups=groups)
    scalars["nll"] = nll(probabilities, targets)
    scalars["brier"] = brier(probabilities, targets)
    scalars["ece"] = reliability(probabilities, targets).ece
    if ranking:
        scalars |= ranking_scores(probabilities, targets)._asdict()
    if num_classes == 2:
        scalars["f1"] = _mean(outcomes.per_class.f1[1:])
    if threshold is not None:
        scalars["f1_at_threshold"] = f1_at_threshold(probabilities, targets, threshold=threshold)
    group_sizes = {name: int(mask.sum()) for name, mask in groups.items()}
    return Metrics(scalars, outcomes.per_class, outcomes.confusion, group_sizes)


def _old_and_new(
    old_classes: Sequence[int], *, support: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Masks (C,) of the old and the new classes among those tested; empty if one is."""
    old = np.isin(np.arange(len(support)), np.array(old_classes, dtype=np.int64))
    masks = {"old": old & (support > 0), "new": ~old & (support > 0)}
    return masks if all(mask.any() for mask in masks.values()) else {}


def _outcome_scalars(
    outcomes: Outcomes, *, groups: dict[str, npt.NDArray[np.bool_]]
) -> dict[str, float | None]:
    recall = outcomes.per_class.recall
    tested = recall[~np.isnan(recall)]
    scalars = {"balanced_accuracy": _mean(recall), "macro_f1": _mean(outcomes.per_class.f1)}
    scalars |= {f"{name}_accuracy": _mean(recall[mask]) for name, mask in groups.items()}
    scalars["worst_class_recall"] = float(tested.min())
    product = np.exp(np.log(tested).mean()) if tested.all() else 0.0
    return scalars | {"geometric_mean": float(product), "mcc": outcomes.mcc}


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    """Mean of the values that are defined; None where none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def _without_values(metrics: Metrics) -> Metrics:
    unknown = np.full(len(metrics.per_class.support), np.nan)
    return Metrics(
        scalars={k: None if v is None else float("nan") for k, v in metrics.scalars.items()},
        per_class=PerClass(unknown, unknown, unknown, metrics.per_class.support),
        confusion=None,
        group_sizes=metrics.group_sizes,
    )
