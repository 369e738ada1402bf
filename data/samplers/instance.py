"""Instance sampling."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from data._class_index import ClassIndex
from data.samplers._base import Sampler, natural_shares

_LARGE = 1 << 20  # positions; an epoch of fewer fits the cache


class Instance(Sampler):
    """Every image once an epoch, in random order.

    In an epoch of another length every image is drawn equally often, give or take one: a shorter
    epoch is a part of the images, drawn anew each time.
    """

    balances: ClassVar[bool] = False

    def class_probabilities(self, class_counts: np.ndarray, *, progress: float) -> np.ndarray:
        """Return the classes' shares of the training images, n_c / N."""
        del progress
        return natural_shares(class_counts)

    def positions(
        self,
        class_index: ClassIndex,
        generator: np.random.Generator,
        *,
        progress: float,
        length: int,
    ) -> np.ndarray:
        """Draw one permutation of the N positions after the other, and cut the last one off."""
        del progress
        num = len(class_index.order)
        parts = [_permutation(generator, num) for _ in range(-(-length // num))]
        return np.concatenate(parts)[:length]


def _permutation(generator: np.random.Generator, num: int) -> np.ndarray:
    """Return a uniform permutation; large ones by buckets that fit the cache (Rao 1961).

    Each position goes to a bucket at random and every bucket is shuffled: as uniform as one
    shuffle, and twice as fast at ten million, where a plain shuffle waits for memory.
    """
    if num < _LARGE:
        return generator.permutation(num)
    buckets = np.frombuffer(generator.bytes(num), dtype=np.uint8)
    order = np.argsort(buckets, kind="stable")
    start = 0
    for size in np.bincount(buckets, minlength=256):
        generator.shuffle(order[start : start + size])
        start += size
    return order
