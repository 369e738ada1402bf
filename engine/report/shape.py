"""How long a tail is, in numbers: imbalance factor, Gini coefficient, shares of head and tail."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FIFTH = 0.2


class Shape(NamedTuple):
    """The shape of class counts.

    Attributes:
        factor: largest over smallest count.
        gini: 0 for equal counts, towards 1 for one class that has everything.
        fifth: number of classes that a fifth of them is, at least 1.
        head: share of the images in the largest fifth of the classes.
        tail: share of the images in the smallest fifth.
    """

    factor: float
    gini: float
    fifth: int
    head: float
    tail: float


def shape_of(class_counts: npt.NDArray[np.integer]) -> Shape:
    """Describe counts (C,) of which none is 0.

    The Gini coefficient is the mean absolute difference of two counts over twice their mean.

    >>> shape_of(np.array([6, 1, 1]))
    Shape(factor=6.0, gini=0.4166666666666667, fifth=1, head=0.75, tail=0.125)
    """
    counts = np.sort(class_counts.astype(np.float64))
    num, total = len(counts), counts.sum()
    # sum over pairs |a - b| = 2 sum_i (2i - C + 1) n_i with counts ascending, i from 0.
    gini = float(((2 * np.arange(num) - num + 1) * counts).sum() / (num * total))
    fifth = max(1, round(FIFTH * num))
    return Shape(
        factor=float(counts[-1] / counts[0]),
        gini=gini,
        fifth=fifth,
        head=float(counts[-fifth:].sum() / total),
        tail=float(counts[:fifth].sum() / total),
    )
