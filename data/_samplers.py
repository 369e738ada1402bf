"""Samplers: which training images an epoch sees, in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, assert_never

import numpy as np
import torch
from torch import Tensor

from data._permutation import stable_order

SamplerName = Literal[
    "instance", "class_balanced", "square_root", "effective_number", "progressive"
]

_EPOCH_ORDER = 0x5EED  # keeps the epoch streams apart from every other use of the same seed
_LARGE = 1 << 20  # positions; an epoch of fewer fits the cache
_CHUNK = 1 << 16  # draws made at a time, so that their temporaries stay in the cache


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


class _Alias(NamedTuple):
    """Walker's alias table: column c stands for itself with ``keep[c]``, else for ``other[c]``."""

    keep: np.ndarray
    other: np.ndarray


def class_probabilities(
    name: SamplerName, class_counts: np.ndarray, *, progress: float, beta: float = 0.9999
) -> np.ndarray:
    """Return the probability (C,) with which a draw comes from each class.

    With n_c the number of training images, up to normalisation: ``instance`` n_c,
    ``class_balanced`` 1, ``square_root`` sqrt(n_c) and ``progressive``
    (1 - t) n_c / N + t / C with t = ``progress`` (Kang et al. 2020, eq. 1 and 2);
    ``effective_number`` n_c (1 - beta) / (1 - beta^n_c) (Cui et al. 2019, eq. 2, as LDAM-DRW
    re-samples). A class of count 0 has probability 0 and is left out of C.

    >>> class_probabilities("square_root", np.array([16, 0, 1]), progress=0.0).tolist()
    [0.8, 0.0, 0.2]
    """
    counts = class_counts.astype(np.float64)
    present = (counts > 0).astype(np.float64)
    natural, balanced = counts / counts.sum(), present / present.sum()
    match name:
        case "instance":
            return natural
        case "class_balanced":
            return balanced
        case "square_root":
            weights = np.sqrt(counts)
        case "effective_number":
            weights = present * _images_per_effective_image(counts, beta=beta)
        case "progressive":
            return (1 - progress) * natural + progress * balanced
        case _:
            assert_never(name)
    return weights / weights.sum()


def draw_epoch(
    name: SamplerName,
    class_index: ClassIndex,
    *,
    seed: int,
    epoch: int,
    progress: float,
    beta: float = 0.9999,
) -> Tensor:
    """Draw the N positions of one epoch in O(N), as a function of ``seed`` and ``epoch`` alone.

    ``instance`` is a permutation: every image once. The others draw independently, a class by
    :func:`class_probabilities` and then one of its images uniformly, as a weighted sampler with
    replacement does; torch.multinomial is not used because it stops at 2^24 categories.

    Args:
        name: How classes are weighted.
        class_index: The positions of every class.
        seed: Seed of the loader's stream, >= 0.
        epoch: Number of the epoch, >= 0.
        progress: Fraction of training done, in [0, 1]; read by ``progressive`` alone.
        beta: Of the effective number, in [0, 1); read by ``effective_number`` alone.

    Returns:
        (N,) int64 positions.
    """
    key = np.random.SeedSequence([_EPOCH_ORDER, seed, epoch])
    generator = np.random.Generator(np.random.SFC64(key))
    if name == "instance":
        return torch.from_numpy(_permutation(generator, len(class_index.order)))
    p = class_probabilities(name, class_index.counts, progress=progress, beta=beta)
    return torch.from_numpy(_draw_with_replacement(generator, class_index, p))


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


def _images_per_effective_image(counts: np.ndarray, *, beta: float) -> np.ndarray:
    """Return n (1 - beta) / (1 - beta^n), exact where beta is close to 1."""
    if beta == 0:
        return counts
    # log1p and expm1: 1 - beta^n has no correct digit left where n (1 - beta) is tiny.
    lost = -np.expm1(np.maximum(counts, 1) * np.log1p(beta - 1))
    return counts * (1 - beta) / lost


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


def _draw_with_replacement(
    generator: np.random.Generator, class_index: ClassIndex, probabilities: np.ndarray
) -> np.ndarray:
    """Draw N positions: a class through the alias table, then one of its images."""
    alias = _alias_table(probabilities)
    num_classes = len(probabilities)
    drawn = np.empty(len(class_index.order), dtype=np.int64)
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
