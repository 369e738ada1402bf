"""Metrics of one pass of predictions: pure functions of NumPy arrays.

Each metric is a function of the ``catalogue``. Per-class scores and the confusion matrix stand in
``per_class``, the quality of the probabilities in ``calibration``, that of their order in
``ranking``. scikit-learn has the same values, and the tests hold these to it; a run does not import
it, since that takes longer than validating a small run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.config.metrics import metrics
from engine.training.metrics.catalogue import CATALOGUE
from engine.training.metrics.groups import USUAL, Limits, few_shot_groups
from engine.training.metrics.per_class import PerClass
from engine.training.metrics.ranking import bagged_threshold, best_threshold
from engine.training.metrics.rows import ArrayInBlocks, InBlocks, RowScores
from engine.training.metrics.scored import Scored

__all__ = [
    "Limits",
    "Metrics",
    "PerClass",
    "bagged_threshold",
    "best_threshold",
    "evaluate",
    "few_shot_groups",
]


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
        num_ties: Samples whose largest probability two or more classes share, so that the lowest of
            their labels was predicted.
        rows: What was predicted for each of the N samples.
        limits: Of the groups.
    """

    scalars: dict[str, float | None]
    per_class: PerClass
    confusion: npt.NDArray[np.int64] | None
    group_sizes: dict[str, int]
    num_ties: int
    rows: RowScores
    limits: Limits = USUAL


def evaluate(
    probabilities: npt.NDArray[np.floating] | InBlocks,
    targets: npt.NDArray[np.integer],
    class_counts: npt.NDArray[np.integer],
    *,
    old_classes: Sequence[int] = (),
    ranking: bool = False,
    threshold: float | None = None,
    limits: Limits = USUAL,
) -> Metrics:
    """Compute every metric of a pass: probabilities (N, C), targets (N,), training counts (C,).

    The predicted class is the arg max, the lowest index on a tie. The scalars are those of
    :mod:`engine.training.metrics.catalogue` whose needs are met; means over classes are taken over
    those that have test images.

    Where a probability is not finite, every scalar and per-class score that is defined is NaN and
    there is no confusion matrix: a model that diverged shows, it does not score by chance.

    Args:
        probabilities: (N, C) floats, N >= 1, rows that sum to one; an array, or what hands them
            out in blocks.
        targets: (N,) integers in [0, C).
        class_counts: (C,) training images of each class; they define the groups.
        old_classes: Labels that an earlier run learnt.
        ranking: Adds auroc and average_precision (None where N x C > 2e7).
        threshold: For C = 2, adds f1_at_threshold: F1 of class 1 when its probability is at or
            above this number. `bagged_threshold` finds it on validation.
        limits: Of the groups.
    """
    source = (
        ArrayInBlocks(probabilities) if isinstance(probabilities, np.ndarray) else probabilities
    )
    num_samples, num_classes = source.shape
    assert num_samples > 0 and num_classes > 1, probabilities.shape
    assert targets.shape == (num_samples,), targets.shape
    assert class_counts.shape == (num_classes,), class_counts.shape
    assert targets.min() >= 0 and targets.max() < num_classes, "a target is outside [0, C)"
    assert threshold is None or num_classes == 2, "a threshold is for binary tasks"
    rows = RowScores.of(source, targets)
    if not rows.is_finite:
        uniform = np.broadcast_to(np.float32(1 / num_classes), source.shape)
        stand_in = evaluate(
            uniform,
            targets,
            class_counts,
            old_classes=old_classes,
            ranking=ranking,
            threshold=threshold,
            limits=limits,
        )
        return _without_values(stand_in)
    assert rows.largest_error < 0.02, "rows do not sum to one"

    scored = Scored(source, rows, targets, class_counts, tuple(old_classes), threshold, limits)
    scalars = {
        name: function(scored)
        for name, function in CATALOGUE.items()
        if scored.has(needed := metrics()[name].needs) and (ranking or needed != "ranking")
    }
    outcomes = scored.outcomes
    group_sizes = {name: int(mask.sum()) for name, mask in scored.groups.items()}
    return Metrics(
        scalars,
        outcomes.per_class,
        outcomes.confusion,
        group_sizes,
        num_ties=rows.num_ties,
        rows=rows,
        limits=limits,
    )


def _without_values(metrics: Metrics) -> Metrics:
    unknown = np.full(len(metrics.per_class.support), np.nan)
    return Metrics(
        scalars={k: None if v is None else float("nan") for k, v in metrics.scalars.items()},
        per_class=PerClass(unknown, unknown, unknown, metrics.per_class.support),
        confusion=None,
        group_sizes=metrics.group_sizes,
        num_ties=0,
        rows=metrics.rows,
        limits=metrics.limits,
    )
