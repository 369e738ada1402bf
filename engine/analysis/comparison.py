"""Two classifiers on the same images: who is right where, and how sure the difference is.

The intervals here are over test images, or over groups of them where these are known, the two
models held: they say nothing of another training run. What varies from run to run is in
``engine.report.statistics.paired_difference``, over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.analysis.blocks import Doubles, Integers, Mask
from engine.report.cluster_bootstrap import Interval, cluster_differences

RESAMPLES = 10_000
LEVEL = 0.95


NOT_INDEPENDENT = "McNemar's test takes images as independent; those of one group are not"
"""Why there is no p where groups are known."""


class Estimate(NamedTuple):
    """A difference with its 95 % interval over images, or over groups of images."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """The images on which exactly one of two classifiers is right.

    Attributes:
        only_first: Images that the first alone has right.
        only_second: Images that the second alone has right.
        accuracy_difference: Second - first in accuracy over all images, which is what is tested:
            frequent classes count more than in balanced accuracy, and may say the opposite.
        p: Two-sided exact p-value of both numbers having the same expectation.
    """

    only_first: int
    only_second: int
    accuracy_difference: float
    p: float


def mcnemar(first: Mask, second: Mask) -> McNemar:
    """Test whether two classifiers are right equally often: McNemar (1947), by exact binomials.

    The images are taken to be independent, which those of one patient or one smear are not.

    Args:
        first: (N,) whether the first is right.
        second: (N,) whether the second is right, of the same images.

    >>> mcnemar(np.array([True, True, True, False]), np.array([False, False, False, False]))
    McNemar(only_first=3, only_second=0, accuracy_difference=-0.75, p=0.25)
    """
    from scipy.special import bdtr

    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    p = min(1.0, 2 * float(bdtr(min(one, other), one + other, 0.5))) if one + other else 1.0
    return McNemar(one, other, (other - one) / len(first), p)


def recall_difference(
    first: Mask,
    second: Mask,
    targets: Integers,
    *,
    classes: Mask,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate | None:
    """Return second - first in mean recall over classes, with a bootstrap interval over images.

    Images are drawn again within each class, both classifiers seeing the same ones. Of a class's
    images some count +1 (only the second is right), some -1, the rest 0: drawing them is drawing
    those three numbers. None where no class has images.

    Args:
        first: (N,) whether the first is right.
        second: (N,) whether the second is right.
        targets: (N,) labels.
        classes: (C,) those of which the mean is taken; those without images are left out.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    num_classes = len(classes)
    images = np.bincount(targets, minlength=num_classes)
    chosen = np.flatnonzero(classes & (images > 0))
    if chosen.size == 0:
        return None
    gained = np.bincount(targets[second & ~first], minlength=num_classes)[chosen]
    lost = np.bincount(targets[first & ~second], minlength=num_classes)[chosen]
    number = images[chosen]
    generator = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for up, down, size in zip(gained, lost, number, strict=True):
        if up + down:
            drawn = generator.multinomial(
                size, [up / size, down / size, 1 - (up + down) / size], size=resamples
            )
            total += (drawn[:, 0] - drawn[:, 1]) / size
    total /= chosen.size
    low, high = np.quantile(total, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(((gained - lost) / number).mean()), float(low), float(high))


def recall_differences(
    first: Mask,
    second: Mask,
    targets: Integers,
    *,
    masks: Mapping[str, Mask],
    groups: Integers | None = None,
) -> dict[str, Estimate | None]:
    """Return second - first in mean recall over several sets of classes, by their names.

    The intervals are those of :func:`recall_difference`; with groups they are over whole groups, by
    :func:`engine.report.cluster_bootstrap.cluster_differences`.

    Args:
        first: (N,) whether the first is right.
        second: (N,) whether the second is right.
        targets: (N,) labels.
        masks: (C,) classes of which a mean is taken, by name.
        groups: (N,) group of each image; None takes images to be independent.
    """
    if groups is None:
        return {
            name: recall_difference(first, second, targets, classes=mask)
            for name, mask in masks.items()
        }
    found = cluster_differences(first, second, targets, groups, masks=dict(masks))
    return {name: _estimate(found[name]) for name in masks}


def accuracy_difference(first: Mask, second: Mask, groups: Integers) -> Estimate:
    """Return second - first in accuracy over all images, with an interval over groups.

    Args:
        first: (N,) whether the first is right.
        second: (N,) whether the second is right.
        groups: (N,) group of each image.
    """
    of_one_class = np.zeros(len(groups), dtype=np.int64)
    found = cluster_differences(first, second, of_one_class, groups, masks={})["accuracy"]
    return Estimate(found.value, found.low, found.high)


def _estimate(found: Interval) -> Estimate | None:
    return None if np.isnan(found.value) else Estimate(found.value, found.low, found.high)


def disagreements(first: Integers, second: Integers, targets: Integers) -> Doubles:
    """Return the share of each class's images with two different answers, NaN without images.

    Args:
        first: (N,) predictions of the first.
        second: (N,) predictions of the second.
        targets: (N,) labels.
    """
    num_classes = int(max(first.max(), second.max(), targets.max())) + 1
    images = np.bincount(targets, minlength=num_classes)
    differ = np.bincount(targets[first != second], minlength=num_classes)
    found = np.full(num_classes, np.nan)
    np.divide(differ, images, out=found, where=images > 0)
    return found
