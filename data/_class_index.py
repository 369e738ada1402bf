"""Where the images of each class are, and what a draw of positions holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data._permutation import stable_order


@dataclass(frozen=True, eq=False)
class ClassIndex:
    """The positions of every class, built once from the targets.

    Args:
        order: (N,) int64, positions sorted by class, in their own order within a class.
        starts: (C,) int64, where each class begins in ``order``.
        counts: (C,) int64, number of positions of each class.
    """

    order: np.ndarray
    starts: np.ndarray
    counts: np.ndarray

    @classmethod
    def from_targets(cls, targets: Tensor, *, num_classes: int) -> ClassIndex:
        """Sort ``targets`` (N,) by counting, in O(N + C)."""
        labels = targets.numpy()
        counts = np.bincount(labels, minlength=num_classes)
        return cls(stable_order(labels), np.cumsum(counts) - counts, counts)

    def positions(self, label: int) -> np.ndarray:
        """Return the ascending positions of one class."""
        start = self.starts[label]
        return self.order[start : start + self.counts[label]]


def class_histogram(positions: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Count how often each class was drawn: positions (M,), targets (N,) -> int64 (C,)."""
    return torch.bincount(targets[positions], minlength=num_classes)


def occurrences(positions: Tensor) -> Tensor:
    """Return for each of ``positions`` (M,) how often it stood there before, int64 (M,).

    >>> occurrences(torch.tensor([4, 2, 4, 4])).tolist()
    [0, 0, 1, 2]
    """
    drawn = positions.numpy()
    slots = np.arange(len(drawn))
    bits = len(drawn).bit_length()
    # Position above slot in one integer: a plain sort is stable on it, and vectorised.
    keys = np.sort(drawn << bits | slots)
    is_first = np.diff(keys >> bits, prepend=-1) != 0
    first_of_run = np.maximum.accumulate(np.where(is_first, slots, 0))
    seen = np.empty_like(drawn)
    seen[keys & ((1 << bits) - 1)] = slots - first_of_run
    return torch.from_numpy(seen)
