"""Intervals of test numbers from resampled groups of images; Wilson's where groups are few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.report.resolution import effective_number, wilson

if TYPE_CHECKING:
    from scipy.sparse import csc_array

DRAWS = 2000
FEW = 20
"""Resampling fewer groups gives too narrow intervals (Cameron and Miller, 2015, "A Practitioner's
Guide to Cluster-Robust Inference", section VI: few means fewer than 20 to 50)."""

_DRAWN_TOGETHER = 2**22  # numbers of a chunk of resamples
_TAILS = (0.025, 0.975)
_ROUNDING = 1e-12


class Interval(NamedTuple):
    """A value and the ends of its 95 % interval; NaN where nothing is defined.

    Attributes:
        value: of the predictions.
        low: lower end.
        high: upper end.
        num: groups, or images, that the value rests on.
        effective: of how many it would rest with equal weights (Kish).
    """

    value: float
    low: float
    high: float
    num: int
    effective: float


@dataclass(frozen=True)
class Intervals:
    """The intervals of one pass of predictions.

    Attributes:
        means: by name.
        recall: of each class, in label order.
        num_clusters: groups that were resampled, or images.
        are_groups: whether they are groups.
    """

    means: dict[str, Interval]
    recall: tuple[Interval, ...]
    num_clusters: int
    are_groups: bool


def cluster_intervals(
    targets: npt.NDArray[np.integer],
    predictions: npt.NDArray[np.integer],
    groups: npt.NDArray[np.integer] | None,
    *,
    masks: dict[str, npt.NDArray[np.bool_]],
    num_classes: int,
) -> Intervals:
    """Resample whole groups with replacement, 2,000 times, and take percentiles.

    Images of one group are right and wrong together more often than others; resampling images
    would make intervals too narrow (Davison and Hinkley, 1997, "Bootstrap Methods", section 3.8).
    A class without an image in a resample has no recall there, and is left out of its means.

    Resamples of groups that are all right say nothing of the next group, and those of few groups
    too little: an interval of no width, or over an effective number below 20, reaches at either end
    at least as far as Wilson's interval of a share among the effective number of groups, which
    takes all images of a group to be right or wrong together.

    Args:
        targets: (N,) true class.
        predictions: (N,) predicted class.
        groups: (N,) number of each image's group; None resamples images.
        masks: (C,) classes whose mean recall is wanted, by name.
        num_classes: C.
    """
    from scipy.sparse import coo_array

    clusters = np.arange(len(targets)) if groups is None else groups
    _, clusters = np.unique(clusters, return_inverse=True)
    num, shape = int(clusters.max()) + 1, (int(clusters.max()) + 1, num_classes)
    is_right = (targets == predictions).astype(np.float64)
    images = coo_array((np.ones(len(targets)), (clusters, targets)), shape=shape).tocsr()
    right = coo_array((is_right, (clusters, targets)), shape=shape).tocsr()
    draw = np.random.default_rng(0)
    step = max(1, _DRAWN_TOGETHER // num)
    drawn: list[dict[str, npt.NDArray[np.float64]]] = [
        _scores(
            (images.T @ times.T).T,
            (right.T @ times.T).T,
            masks=masks,
        )
        for start in range(0, DRAWS, step)
        for times in [
            draw.multinomial(num, np.full(num, 1 / num), size=min(step, DRAWS - start)).astype(
                np.float64
            )
        ]
    ]
    once = np.ones((1, num))
    values = _scores((images.T @ once.T).T, (right.T @ once.T).T, masks=masks)
    recalls = np.concatenate([scores["recall"] for scores in drawn])
    by_class = images.tocsc()
    return Intervals(
        means={
            name: _interval(values[name][0], np.concatenate([own[name] for own in drawn]), weights)
            for name, weights in _weights(by_class, masks=masks).items()
        },
        recall=tuple(
            _interval(value, recalls[:, label], by_class[:, [label]].data)
            for label, value in enumerate(values["recall"][0])
        ),
        num_clusters=num,
        are_groups=groups is not None,
    )


def _weights(
    images: csc_array, *, masks: dict[str, npt.NDArray[np.bool_]]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the weights (G,) of groups in each mean from images (G, C) by group and class."""
    total = images.sum(0)
    own = np.divide(1.0, total, out=np.zeros(len(total)), where=total > 0)
    weights = {"accuracy": images.sum(1)}
    return weights | {name: images @ np.where(mask, own, 0.0) for name, mask in masks.items()}


def _scores(
    images: npt.NDArray[np.float64],
    right: npt.NDArray[np.float64],
    *,
    masks: dict[str, npt.NDArray[np.bool_]],
) -> dict[str, npt.NDArray[np.float64]]:
    """Return scores of resamples (B,) and recalls (B, C) from images and hits (B, C)."""
    recall = np.full(images.shape, np.nan)
    np.divide(right, images, out=recall, where=images > 0)
    scores = {"accuracy": right.sum(1) / images.sum(1), "recall": recall}
    for name, mask in masks.items():
        there = images[:, mask] > 0
        total = np.where(there, recall[:, mask], 0.0).sum(1)
        scores[name] = np.full(len(images), np.nan)
        np.divide(total, there.sum(1), out=scores[name], where=there.any(1))
    return scores


def _interval(
    value: float, drawn: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> Interval:
    """Return the interval of a value, of resamples (B,), whose groups have these weights."""
    defined, weights = drawn[~np.isnan(drawn)], weights[weights > 0]
    if np.isnan(value) or not len(defined):
        return Interval(float("nan"), float("nan"), float("nan"), len(weights), 0.0)
    low, high = np.quantile(defined, _TAILS)
    effective = effective_number(weights)
    if effective < FEW or high - low <= _ROUNDING:
        least, most = wilson(value, effective)
        low, high = min(low, least), max(high, most)
    return Interval(float(value), float(low), float(high), len(weights), effective)
