"""Conformal prediction sets for long tails, and how far their promises reach.

A set holds the classes whose log-probability reaches a threshold of the class; the ways differ in
how the thresholds follow from the scores of held-out images. Angelopoulos and Bates (2023),
"Conformal Prediction: A Gentle Introduction"; for long tails Ding, Fermanian and Salmon (2025),
"Conformal Prediction for Long-Tailed Classification".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from engine.analysis.blocks import Doubles, Floats, Integers, Mask, blocks, check, shares

ALPHA = 0.1
INTERPOLATION = 0.5
LEVEL = 0.95


def quantile(scores: Doubles, *, alpha: float) -> float:
    """Return the ceil((n + 1)(1 - alpha))-th smallest of n scores; infinity where n is too small.

    >>> quantile(np.arange(1.0, 10), alpha=0.1), quantile(np.arange(1.0, 9), alpha=0.1)
    (9.0, inf)
    """
    # The rounding keeps 0.9 x 10 from being a little more than 9.
    rank = max(1, math.ceil(round((len(scores) + 1) * (1 - alpha), 9)))
    if rank > len(scores):
        return math.inf
    return float(np.partition(scores, rank - 1)[rank - 1])


def thresholds(
    log_probabilities: Floats, targets: Integers, class_counts: Integers, *, alpha: float = ALPHA
) -> dict[str, Doubles]:
    """Return the least log-probability with which each class joins a set, (C,), by way.

    ``marginal``: the score is 1 - p of the true class, one quantile for all; covers 1 - alpha of
    all images, rare classes less. ``class-conditional``: a quantile for each class; covers each
    class that has held-out images enough; any other is in every set. ``prevalence-adjusted``: one
    quantile of the score -p / prior (Ding et al. 2025, the prior being the shares of the training
    images); covers 1 - alpha of all images, and rare classes better. ``interpolated``: half the
    marginal and half the class-conditional quantile of 1 - p, an infinite one counting as 1 (Ding
    et al. 2025); without a promise of its own. Promises are for images like the held-out ones.

    Args:
        log_probabilities: (N, C) of held-out images.
        targets: (N,) labels.
        class_counts: (C,) training images.
        alpha: Share of images whose sets may miss the true class, in (0, 1).
    """
    check(log_probabilities, targets, class_counts)
    num_classes = log_probabilities.shape[1]
    own = log_probabilities[np.arange(len(targets)), targets].astype(np.float64)
    prior = np.log(shares(class_counts))
    one = quantile(-own, alpha=alpha)
    order = np.argsort(targets, kind="stable")
    ends = np.cumsum(np.bincount(targets, minlength=num_classes))
    each = np.array([quantile(-part, alpha=alpha) for part in np.split(own[order], ends[:-1])])
    both = INTERPOLATION * _miss(each) + (1 - INTERPOLATION) * _miss(np.array(one))
    with np.errstate(divide="ignore"):
        between = np.log(1 - both)
    return {
        "marginal": np.full(num_classes, -one),
        "class-conditional": -each,
        "prevalence-adjusted": prior - quantile(prior[targets] - own, alpha=alpha),
        "interpolated": between,
    }


def _miss(quantiles: Doubles) -> Doubles:
    """Return 1 - p of quantiles of -log p; 1, the largest such score, for infinity."""
    found: Doubles = -np.expm1(-quantiles)
    return found


@dataclass(frozen=True, eq=False)
class SetResult:
    """What the sets of N images are like.

    Attributes:
        covered: (N,) whether the set holds the true class.
        size: (N,) number of classes in it.
    """

    covered: Mask
    size: Integers


def prediction_sets(log_probabilities: Floats, targets: Integers, limits: Doubles) -> SetResult:
    """Return coverage and size of each image's set, for thresholds (C,) of the classes."""
    check(log_probabilities, targets)
    covered = np.empty(len(targets), dtype=bool)
    size = np.empty(len(targets), dtype=np.int64)
    # Rounded as the log-probabilities are: the image at the threshold is in.
    limits = limits.astype(log_probabilities.dtype)
    for rows in blocks(log_probabilities):
        is_in = log_probabilities[rows] >= limits
        size[rows] = is_in.sum(axis=1)
        covered[rows] = is_in[np.arange(len(is_in)), targets[rows]]
    return SetResult(covered, size)


def wilson(hits: int, number: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share; Wilson (1927).

    >>> tuple(round(end, 3) for end in wilson(9, 10))
    (0.596, 0.982)
    """
    from scipy.special import ndtri

    z = float(ndtri((1 + LEVEL) / 2))
    share = hits / number
    middle = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    half = z / (1 + z**2 / number) * math.sqrt(share * (1 - share) / number + (z / 2 / number) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)


def least_images(alpha: float) -> int:
    """Return the held-out images from which on a class has a threshold at all, ceil(1/alpha) - 1.

    >>> least_images(0.1), least_images(0.05)
    (9, 19)
    """
    return math.ceil(round(1 / alpha, 9)) - 1


def images_for(alpha: float, *, tolerance: float) -> int:
    """Return the held-out images with which coverage reaches 1 - alpha - tolerance 95 times of 100.

    Given n held-out images, the coverage of later ones is a random number with the distribution
    Beta(n + 1 - l, l), l = floor((n + 1) alpha): Vovk (2012), "Conditional Validity of Inductive
    Conformal Predictors". Its 5 % quantile is to be reached.
    """
    from scipy.special import betaincinv

    # Far beyond what a normal approximation asks for.
    most = math.ceil(20 * alpha * (1 - alpha) / tolerance**2 + 20 / alpha)
    number = np.arange(least_images(alpha), most)
    missed = np.floor(np.round((number + 1) * alpha, 9))
    reached = betaincinv(number + 1 - missed, missed, 1 - LEVEL) >= 1 - alpha - tolerance
    # Steps of l make it rise and fall: after the last failure it holds for good.
    failed = np.flatnonzero(~reached)
    return int(number[0] if failed.size == 0 else number[failed[-1]] + 1)
