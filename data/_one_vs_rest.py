"""The binary task of one class against all others."""

from __future__ import annotations

import difflib
from dataclasses import replace

from data._base import DataError, Labelled, Pool


def binary_pool(pool: Pool, wanted: str) -> Pool:
    """Relabel a pool: the wanted class is 1, every other class 0, called "rest".

    Args:
        pool: The pool to relabel, validation and test lists too.
        wanted: A class by name, else by label.

    Raises:
        DataError: If there is no such class.
    """
    label = _find_class(pool, wanted)

    def relabel(part: Labelled) -> Labelled:
        return replace(part, targets=(part.targets == label).long())

    return replace(
        pool,
        train=relabel(pool.train),
        test=relabel(pool.test),
        val=None if pool.val is None else relabel(pool.val),
        class_names=("rest", pool.class_names[label]),
    )


def _find_class(pool: Pool, wanted: str) -> int:
    """Return the label of the class of that name, else of that number."""
    if wanted in pool.class_names:
        return pool.class_names.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(pool.class_names):
        return int(wanted)
    near = difflib.get_close_matches(wanted, pool.class_names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"for example {pool.class_names[0]!r}"
    raise DataError(
        f"data.one_vs_rest={wanted!r} is no class of {pool.title}: give one of its "
        f"{len(pool.class_names)} class names or a label from 0 to {len(pool.class_names) - 1}; "
        f"{hint}"
    )
