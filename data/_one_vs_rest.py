"""The binary task of one class against all others."""

from __future__ import annotations

from dataclasses import replace

from data._base import Labelled, Pool
from data._classes import find_class


def binary_pool(pool: Pool, wanted: str) -> Pool:
    """Relabel a pool: the wanted class is 1, every other class 0, called "rest".

    Args:
        pool: The pool to relabel, validation and test lists too.
        wanted: A class by name, else by label.

    Raises:
        DataError: If there is no such class.
    """
    label = find_class(pool, wanted, key="data.one_vs_rest")

    def relabel(part: Labelled) -> Labelled:
        return replace(part, targets=(part.targets == label).long())

    return replace(
        pool,
        train=relabel(pool.train),
        test=relabel(pool.test),
        val=None if pool.val is None else relabel(pool.val),
        class_names=("rest", pool.class_names[label]),
    )
