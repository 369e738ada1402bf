"""Which classes are taken for which, above all the tail for the head, and the surest mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.analysis.blocks import Doubles, Integers, Mask
from engine.analysis.scaling import Confidences

MOST = 20


class Confusion(NamedTuple):
    """Images of one class that are taken for another.

    Attributes:
        true: label of the images.
        predicted: label they are given.
        images: how many.
        share: of the true class's images.
    """

    true: int
    predicted: int
    images: int
    share: float


def confusion_counts(
    targets: Integers, predicted: Integers, *, num_classes: int
) -> npt.NDArray[np.int64]:
    """Return (C, C) numbers of images, rows = true class."""
    cells = np.bincount(targets * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def towards_the_head(
    counts: npt.NDArray[np.int64], class_counts: Integers, *, most: int = MOST
) -> list[Confusion]:
    """Return which more frequent class takes the images of which class, the largest share first.

    Args:
        counts: (C, C) from :func:`confusion_counts`.
        class_counts: (C,) training images.
        most: confusions returned.
    """
    is_towards = class_counts[:, None] < class_counts[None, :]
    images = counts.sum(axis=1)
    taken = np.where(is_towards, counts, 0)
    rates = np.divide(taken, images[:, None], out=np.zeros(counts.shape), where=images[:, None] > 0)
    # By share, then by number of images, then by label.
    order = np.lexsort((-taken.ravel(), -rates.ravel()))[:most]
    pairs = [divmod(int(place), len(counts)) for place in order]
    return [
        Confusion(true, other, int(taken[true, other]), float(rates[true, other]))
        for true, other in pairs
        if taken[true, other] > 0
    ]


def between_groups(counts: npt.NDArray[np.int64], groups: Mapping[str, Mask]) -> dict[str, Doubles]:
    """Return, for the images of many, medium and few classes, where they go.

    Args:
        counts: (C, C) from :func:`confusion_counts`.
        groups: masks (C,) of many, medium and few, in this order.

    Returns:
        by group (4,): shares that are right, and else taken for a many, a medium, a few class. The
        rest, classes without training images, is not in it. NaN for a group without images.
    """
    found = {}
    for name, mask in groups.items():
        own = counts[mask]
        right = counts.diagonal()[mask].sum()
        others = [
            own[:, other].sum() - (right if other is mask else 0) for other in groups.values()
        ]
        total = own.sum()
        found[name] = np.array([right, *others]) / total if total else np.full(4, np.nan)
    return found


def surest_mistakes(
    found: Confidences, targets: Integers, *, most: int = MOST
) -> npt.NDArray[np.int64]:
    """Return the positions of the wrong predictions with the largest probabilities, surest first.

    On a tie the one in front comes first.
    """
    wrong = np.flatnonzero(found.predicted != targets)
    return wrong[np.argsort(-found.confidence[wrong], kind="stable")][:most]
