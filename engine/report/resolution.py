"""What differences a test set can show, before anything is trained."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.report.statistics import FEWEST_FOR_A_CLAIM

LEVEL = 0.95
POWER = 0.8
"""Probability with which a difference that is there shall be found."""

MOST_SEEDS = 1000


class HalfWidth(NamedTuple):
    """Half the width of a 95 % interval, at an accuracy of one half, where it is widest.

    Attributes:
        images: if every image counts for itself.
        groups: if all images of one group are right or wrong together, whatever their class; None
            without groups.
    """

    images: float
    groups: float | None


def half_width(num: float) -> float:
    """Return half the width of Wilson's 95 % interval for a share of one half among ``num``.

    It is z / (2 sqrt(n + z^2)) (Wilson, 1927): below one half for any number, and never wider at
    another share.

    >>> round(half_width(100), 4)
    0.0962
    """
    z = _normal()
    return z / (2 * math.sqrt(num + z * z))


def wilson(share: float, num: float) -> tuple[float, float]:
    """Return the ends of Wilson's 95 % interval for a share among ``num`` (Wilson, 1927).

    Unlike a bootstrap interval it has a width where all or none are right.

    >>> low, high = wilson(1.0, 8)
    >>> f"{low:.3f} {high:.3f}"
    '0.676 1.000'
    """
    square = _normal() ** 2 / num
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def effective_number(weights: npt.NDArray[np.number]) -> float:
    """Return of how many images a weighted mean is worth: (sum w)^2 / sum w^2 (Kish).

    Args:
        weights: of what is right or wrong by itself: of each image, or of each group, which has
            the weights of its images in sum.

    >>> effective_number(np.array([5, 5, 5]))
    3.0
    """
    own = weights.astype(np.float64)
    return float(own.sum() ** 2 / (own**2).sum())


def class_half_widths(
    targets: npt.NDArray[np.integer],
    groups: npt.NDArray[np.integer] | None,
    *,
    num_classes: int,
) -> list[HalfWidth | None]:
    """Return the half-width of each class's recall, None where it has no test image.

    Args:
        targets: (N,) class of each test image.
        groups: (N,) group of each test image, if known.
        num_classes: C.
    """
    return [
        mean_half_width(targets, groups, classes=np.arange(num_classes) == label)
        for label in range(num_classes)
    ]


def mean_half_width(
    targets: npt.NDArray[np.integer],
    groups: npt.NDArray[np.integer] | None,
    *,
    classes: npt.NDArray[np.bool_],
) -> HalfWidth | None:
    """Return the half-width of the mean recall of some classes, None where none has a test image.

    In that mean an image of a class with n test images weighs 1 / n. Without groups the mean of K
    recalls over n_k images then varies as a share of K^2 / sum(1 / n_k) images does, and has the
    half-width of that. Widths are not to be added up: Wilson's is short where n is small, and their
    sum of squares would cover 74 % at two images in each of ten classes.

    Args:
        targets: (N,) class of each test image.
        groups: (N,) group of each test image, if known.
        classes: (C,) which are meant.
    """
    is_in = classes[targets]
    if not is_in.any():
        return None
    own = targets[is_in]
    weights = 1 / np.bincount(own)[own]
    return _half_width_of_mean(weights, None if groups is None else groups[is_in])


def overall_half_width(groups: npt.NDArray[np.integer] | None, *, num: int) -> HalfWidth:
    """Return the half-width of the accuracy over ``num`` test images."""
    return _half_width_of_mean(np.ones(num), groups)


def _half_width_of_mean(
    weights: npt.NDArray[np.floating], groups: npt.NDArray[np.integer] | None
) -> HalfWidth:
    """Return the half-width of a mean over images of these weights (N,)."""
    together = None
    if groups is not None:
        numbers = np.unique(groups, return_inverse=True)[1]
        together = half_width(effective_number(np.bincount(numbers, weights)))
    return HalfWidth(half_width(effective_number(weights)), together)


def seeds_needed(std: float, *, difference: float) -> int | None:
    """Return how many seeds of each of two methods find a difference four times in five.

    That is the smallest n, of at least 5, for which the 95 % Student interval of n differences
    paired by seed lies above 0 with probability 0.8 where their true mean is ``difference``. The
    two runs of a seed are taken to have nothing in common but their method's noise, so that a
    difference has standard deviation sqrt(2) std, and t is noncentral with n - 1 degrees of freedom
    (Cohen, 1988, "Statistical Power Analysis", chapter 2). None beyond 1,000.

    Args:
        std: standard deviation of one method over seeds.
        difference: to be told from 0, in the unit of ``std``.

    >>> seeds_needed(0.01, difference=0.02)
    7
    """
    from scipy.special import nctdtr, stdtrit

    if std == 0:
        return FEWEST_FOR_A_CLAIM
    ratio = difference / (math.sqrt(2) * std)
    for n in range(FEWEST_FOR_A_CLAIM, MOST_SEEDS + 1):
        end = float(stdtrit(n - 1, (1 + LEVEL) / 2))
        if 1 - float(nctdtr(n - 1, ratio * math.sqrt(n), end)) >= POWER:
            return n
    return None


def _normal() -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + LEVEL) / 2))
