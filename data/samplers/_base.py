"""What every sampler is: the class of a draw, and how an epoch is drawn by it."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data._class_index import ClassIndex

_EPOCH_ORDER = 0x5EED  # keeps the epoch streams apart from every other use of the same seed
_CHUNK = 1 << 16  # draws made at a time, so that their temporaries stay in the cache


class Sampler:
    """Draws the positions of an epoch: a class by its probability, then any of its images.

    A sampler states :meth:`class_probabilities`, or takes the whole draw into its own hands in
    :meth:`positions`. A class fact, a literal in the class body, says what it is for:

    * ``balances``: it draws rare classes more often than their share, so that a correction of the
      logits on top would correct twice.
    """

    balances: ClassVar[bool] = True

    def class_probabilities(self, class_counts: np.ndarray, *, progress: float) -> np.ndarray:
        """Return the probability (C,) with which a draw comes from each class.

        Args:
            class_counts: (C,) training images of each class; one of count 0 has probability 0.
            progress: Fraction of training done, in [0, 1].
        """
        raise NotImplementedError

    def draw(
        self,
        class_index: ClassIndex,
        *,
        seed: int,
        epoch: int,
        progress: float,
        length: int | None = None,
    ) -> Tensor:
        """Draw the M positions of one epoch, as a function of ``seed`` and ``epoch`` alone.

        Args:
            class_index: The positions of every class.
            seed: Seed of the loader's stream, >= 0.
            epoch: Number of the epoch, >= 0.
            progress: Fraction of training done, in [0, 1].
            length: M; None is N, the number of training images.

        Returns:
            (M,) int64 positions.
        """
        key = np.random.SeedSequence([_EPOCH_ORDER, seed, epoch])
        generator = np.random.Generator(np.random.SFC64(key))
        length = len(class_index.order) if length is None else length
        found = self.positions(class_index, generator, progress=progress, length=length)
        return torch.from_numpy(found)

    def positions(
        self,
        class_index: ClassIndex,
        generator: np.random.Generator,
        *,
        progress: float,
        length: int,
    ) -> np.ndarray:
        """Draw ``length`` positions, with replacement, each in constant time.

        torch.multinomial is not used because it stops at 2^24 categories.
        """
        p = self.class_probabilities(class_index.counts, progress=progress)
        return _draw_with_replacement(generator, class_index, p, length=length)


def natural_shares(class_counts: np.ndarray) -> np.ndarray:
    """Return each class's share of the training images, (C,)."""
    counts = class_counts.astype(np.float64)
    return counts / counts.sum()


def equal_shares(class_counts: np.ndarray) -> np.ndarray:
    """Return the same share for every class with images, (C,)."""
    present = (class_counts > 0).astype(np.float64)
    return present / present.sum()


class _Alias(NamedTuple):
    """Walker's alias table: column c stands for itself with ``keep[c]``, else for ``other[c]``."""

    keep: np.ndarray
    other: np.ndarray


def _draw_with_replacement(
    generator: np.random.Generator,
    class_index: ClassIndex,
    probabilities: np.ndarray,
    *,
    length: int,
) -> np.ndarray:
    """Draw ``length`` positions: a class through the alias table, then one of its images."""
    alias = _alias_table(probabilities)
    num_classes = len(probabilities)
    drawn = np.empty(length, dtype=np.int64)
    for start in range(0, len(drawn), _CHUNK):
        out = drawn[start : start + _CHUNK]
        scaled = generator.random(len(out)) * num_classes
        column = scaled.astype(np.int64)
        label = np.where(scaled - column < alias.keep[column], column, alias.other[column])
        within = (generator.random(len(out)) * class_index.counts[label]).astype(np.int64)
        out[:] = class_index.order[class_index.starts[label] + within]
    return drawn


def _alias_table(probabilities: np.ndarray) -> _Alias:
    """Build the alias table in O(C) (Vose 1991)."""
    keep = probabilities * len(probabilities)
    other = np.arange(len(probabilities))
    small = [int(c) for c in np.flatnonzero(keep < 1)]
    large = [int(c) for c in np.flatnonzero(keep >= 1)]
    while small and large:
        poor, rich = small.pop(), large[-1]
        other[poor] = rich
        keep[rich] -= 1 - keep[poor]
        if keep[rich] < 1:
            small.append(large.pop())
    # What is left over is 1 up to rounding, and has itself as its other.
    return _Alias(keep, other)
