"""Which images of each class validation or test takes: from the end of its order, with copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def hold_out(
    orders: Sequence[np.ndarray], sizes: np.ndarray, *, contents: np.ndarray | None
) -> np.ndarray:
    """Return which images (N,) are held out: so many from the end of the order of each class.

    Images of equal content are held out together or not at all, and never if they are in two
    classes; where no image fits, the fewest that can be are. Other classes are not touched by this.

    Args:
        orders: Positions of the images of each class.
        sizes: (C,) images to hold out.
        contents: (N,) as of :class:`data._base.Labelled`; None takes every image by itself.

    >>> orders, sizes = [np.array([2, 0, 4, 1, 3])], np.array([2])
    >>> np.flatnonzero(hold_out(orders, sizes, contents=None))
    array([1, 3])
    >>> np.flatnonzero(hold_out(orders, sizes, contents=np.array([7, 7, 8, 9, 6])))
    array([3, 4])
    """
    num_images = sum(map(len, orders))
    is_held = np.zeros(num_images, dtype=bool)
    units = {} if contents is None else _copies(contents)
    is_copied = np.zeros(num_images, dtype=bool)
    is_copied[list(units)] = True
    for order, size in zip(orders, sizes.tolist(), strict=True):
        if not is_copied[order].any():
            is_held[order[len(order) - size :]] = True
            continue
        own = set(order.tolist())
        found = dict.fromkeys(units.get(at, (at,)) for at in order[::-1].tolist())
        held = _fitting([unit for unit in found if own.issuperset(unit)], size)
        if len(held) < len(own):
            is_held[held] = True
    return is_held


def _copies(contents: np.ndarray) -> dict[int, tuple[int, ...]]:
    """Return the positions of all images of its content for each image that is there twice."""
    _, number, counts = np.unique(contents, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(counts[number] > 1)
    found: dict[int, list[int]] = {}
    for position in repeated.tolist():
        found.setdefault(int(number[position]), []).append(position)
    units = {content: tuple(positions) for content, positions in found.items()}
    return {position: units[int(number[position])] for position in repeated.tolist()}


def _fitting(units: Sequence[tuple[int, ...]], size: int) -> list[int]:
    """Return the images of the first units that fill a size; of the smallest where none fits."""
    held: list[int] = []
    for unit in units:
        if len(held) + len(unit) <= size:
            held += unit
    if held or not size or not units:
        return held
    fewest = min(units, key=len)
    return list(fewest)
