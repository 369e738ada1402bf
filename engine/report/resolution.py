"""What differences a test set can show, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
MOST_SEEDS = 1000


class HalfWidth(NamedTuple):
    """Half the width of a 95 % interval, at an accuracy of one half, where it is widest.

    Attributes:
        images: if every image counts for itself.
        groups: if all images of a class in one group are right or wrong together; None without
            groups.
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


def effective_number(group_sizes: npt.NDArray[np.integer]) -> float:
    """Return of how many images groups of equal outcomes are worth: (sum m)^2 / sum m^2 (Kish).

    >>> effective_number(np.array([5, 5, 5]))
    3.0
    """
    sizes = group_sizes.astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


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
    found: list[HalfWidth | None] = []
    for label in range(num_classes):
        own = targets == label
        if not own.any():
            found.append(None)
            continue
        together = None
        if groups is not None:
            sizes = np.unique(groups[own], return_counts=True)[1]
            together = half_width(effective_number(sizes))
        found.append(HalfWidth(half_width(int(own.sum())), together))
    return found


def mean_half_width(parts: Sequence[HalfWidth | None]) -> HalfWidth | None:
    """Return the half-width of a mean of recalls, None where no class has a test image.

    The mean of K recalls over n_k images varies as a share of K^2 / sum(1 / n_k) images does, and
    has the half-width of that. Widths are not to be added up: Wilson's is short where n is small,
    and their sum of squares would cover 74 % at two images in each of ten classes.
    """
    known = [part for part in parts if part is not None]
    if not known:
        return None
    together = [part.groups for part in known if part.groups is not None]
    return HalfWidth(
        _half_width_of_mean([part.images for part in known]),
        _half_width_of_mean(together) if len(together) == len(known) else None,
    )


def _half_width_of_mean(widths: Sequence[float]) -> float:
    numbers = [(_normal() / (2 * width)) ** 2 - _normal() ** 2 for width in widths]
    return half_width(len(numbers) ** 2 / sum(1 / number for number in numbers))


def overall_half_width(groups: npt.NDArray[np.integer] | None, *, num: int) -> HalfWidth:
    """Return the half-width of the accuracy over ``num`` test images."""
    together = None
    if groups is not None:
        together = half_width(effective_number(np.unique(groups, return_counts=True)[1]))
    return HalfWidth(half_width(num), together)


def seeds_needed(std: float, *, difference: float) -> int | None:
    """Return how many seeds of each of two methods tell a mean difference from 0.

    That is the smallest n of at least 2 with t(n - 1) sqrt(2) std / sqrt(n) <= difference, t being
    the 97.5 % point: half the interval of a mean of paired differences whose two runs have nothing
    in common but their method's noise. None beyond 1,000.

    Args:
        std: standard deviation of one method over seeds.
        difference: to be told from 0, in the unit of ``std``.

    >>> seeds_needed(0.01, difference=0.02)
    5
    """
    from scipy.special import stdtrit

    spread = math.sqrt(2) * std
    for n in range(2, MOST_SEEDS + 1):
        if float(stdtrit(n - 1, (1 + LEVEL) / 2)) * spread / math.sqrt(n) <= difference:
            return n
    return None


def _normal() -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + LEVEL) / 2))
