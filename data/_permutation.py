"""Permutations: fixed ones that every NumPy version draws alike, and stable orders in O(N)."""

from __future__ import annotations

import numpy as np


def fixed_permutation(num: int, *, key: tuple[int, ...]) -> np.ndarray:
    """Return a uniform permutation (num,) of ``range(num)`` that is a function of ``key`` alone.

    It sorts raw 64-bit draws: NumPy promises the raw stream of a bit generator for ever, but not
    what ``Generator.permutation`` makes of it (NEP 19), and a split must outlive an upgrade.

    >>> sorted(fixed_permutation(5, key=(0, 1)).tolist())
    [0, 1, 2, 3, 4]
    """
    bits = np.random.PCG64(np.random.SeedSequence(key))
    return np.argsort(bits.random_raw(num), kind="stable")


def stable_order(keys: np.ndarray) -> np.ndarray:
    """Return the stable sorting order (N,) of non-negative integers in O(N).

    NumPy sorts 16-bit integers by counting, so this takes one pass for each 16 bits of the
    largest key.

    >>> stable_order(np.array([1, 70_000, 0, 1])).tolist()
    [2, 0, 3, 1]
    """
    order = np.argsort((keys & 0xFFFF).astype(np.uint16), kind="stable")
    largest = int(keys.max(initial=0))
    shift = 16
    while largest >> shift:
        digit = ((keys[order] >> shift) & 0xFFFF).astype(np.uint16)
        order = order[np.argsort(digit, kind="stable")]
        shift += 16
    return order
