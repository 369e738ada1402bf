"""Intervals of test numbers, and of differences of two models, from resampled groups of images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.report.resolution import effective_number, wilson
from engine.report.statistics import LEVEL, student

if TYPE_CHECKING:
    from scipy.sparse import csc_array, csr_array

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
    clusters = np.arange(len(targets)) if groups is None else groups
    is_right = (targets == predictions).astype(np.float64)
    found = _resampled(is_right, targets, clusters, masks=masks, num_classes=num_classes)
    return Intervals(
        means={
            name: _interval(found.values[name][0], found.drawn[name], weights)
            for name, weights in _weights(found.images, masks=masks).items()
        },
        recall=tuple(
            _interval(value, found.drawn["recall"][:, label], found.images[:, [label]].data)
            for label, value in enumerate(found.values["recall"][0])
        ),
        num_clusters=found.images.shape[0],
        are_groups=groups is not None,
    )


def cluster_differences(
    first: npt.NDArray[np.bool_],
    second: npt.NDArray[np.bool_],
    targets: npt.NDArray[np.integer],
    groups: npt.NDArray[np.integer],
    *,
    masks: dict[str, npt.NDArray[np.bool_]],
) -> dict[str, Interval]:
    """Resample whole groups that two models have both answered, second - first.

    Both models see the same groups in a resample. The interval reaches at either end as far as the
    wider of two: the percentiles, and Student's t with the resamples' standard deviation and the
    effective number of groups, less one, as degrees of freedom; below two groups it is all of -1 to
    1. Where the difference is the same in every group, Wilson's interval of a share of 0 says how
    many of all groups may be otherwise, and those may differ by -1 or by 1. Two models that are
    right on the same images have the difference 0, from 0 to 0.

    Args:
        first: (N,) whether the first model is right.
        second: (N,) whether the second is.
        targets: (N,) true class.
        groups: (N,) number of each image's group.
        masks: (C,) classes whose mean recall is compared, by name.

    Returns:
        By the names of the masks, and ``accuracy`` over all images.
    """
    num_classes = max([int(targets.max()) + 1, *(len(mask) for mask in masks.values())])
    change = second.astype(np.float64) - first
    found = _resampled(change, targets, groups, masks=masks, num_classes=num_classes)
    return {
        name: _difference(
            found.values[name][0], found.drawn[name], weights, is_known=not change.any()
        )
        for name, weights in _weights(found.images, masks=masks).items()
    }


class _Resampled(NamedTuple):
    """Scores of the images themselves (1, ...), of resamples (B, ...), and images (G, C)."""

    values: dict[str, npt.NDArray[np.float64]]
    drawn: dict[str, npt.NDArray[np.float64]]
    images: csc_array


def _resampled(
    hits: npt.NDArray[np.float64],
    targets: npt.NDArray[np.integer],
    clusters: npt.NDArray[np.integer],
    *,
    masks: dict[str, npt.NDArray[np.bool_]],
    num_classes: int,
) -> _Resampled:
    """Return the scores of what each image counts (N,), and of resampled clusters of images."""
    _, clusters = np.unique(clusters, return_inverse=True)
    num = int(clusters.max()) + 1
    images, right = (
        _by_cluster(each, clusters, targets, shape=(num, num_classes))
        for each in (np.ones(len(targets)), hits)
    )
    draw = np.random.default_rng(0)
    step = max(1, _DRAWN_TOGETHER // num)
    drawn = [
        _scores((images.T @ times.T).T, (right.T @ times.T).T, masks=masks)
        for start in range(0, DRAWS, step)
        for times in [
            draw.multinomial(num, np.full(num, 1 / num), size=min(step, DRAWS - start)).astype(
                np.float64
            )
        ]
    ]
    once = np.ones((1, num))
    values = _scores((images.T @ once.T).T, (right.T @ once.T).T, masks=masks)
    together = {name: np.concatenate([own[name] for own in drawn]) for name in values}
    return _Resampled(values, together, images.tocsc())


def _by_cluster(
    values: npt.NDArray[np.float64],
    clusters: npt.NDArray[np.integer],
    targets: npt.NDArray[np.integer],
    *,
    shape: tuple[int, int],
) -> csr_array:
    """Return the sums of values (N,) by cluster and class."""
    from scipy.sparse import coo_array

    return coo_array((values, (clusters, targets)), shape=shape).tocsr()


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
    found = _percentiles(value, drawn, weights)
    if (found.effective >= FEW and found.high - found.low > _ROUNDING) or np.isnan(found.value):
        return found
    least, most = wilson(found.value, found.effective)
    return found._replace(low=min(found.low, least), high=max(found.high, most))


def _percentiles(
    value: float, drawn: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> Interval:
    """Return a value between the percentiles of its resamples (B,)."""
    defined, weights = drawn[~np.isnan(drawn)], weights[weights > 0]
    if np.isnan(value) or not len(defined):
        return Interval(float("nan"), float("nan"), float("nan"), len(weights), 0.0)
    low, high = np.quantile(defined, _TAILS)
    effective = effective_number(weights)
    return Interval(float(value), float(low), float(high), len(weights), effective)


def _difference(
    value: float,
    drawn: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    *,
    is_known: bool,
) -> Interval:
    """Return the interval of a difference, of resamples (B,), whose groups have these weights."""
    found = _percentiles(value, drawn, weights)
    if is_known or np.isnan(found.value):
        return found
    least, most = _least_interval(found, spread=float(np.nanstd(drawn)))
    return found._replace(
        low=max(-1.0, min(found.low, least)), high=min(1.0, max(found.high, most))
    )


def _least_interval(found: Interval, *, spread: float) -> tuple[float, float]:
    """Return what the interval of a difference holds at least; ``spread`` is of its resamples."""
    value, num = found.value, found.effective
    whole = math.floor(num + _ROUNDING)
    if whole < 2:
        return -1.0, 1.0
    if spread <= _ROUNDING:
        _, unseen = wilson(0.0, num)
        return value - unseen * (1 + value), value + unseen * (1 - value)
    reach = student(whole, LEVEL) * spread * math.sqrt(num / (num - 1))
    return value - reach, value + reach
