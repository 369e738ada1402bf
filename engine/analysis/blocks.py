"""Rows of a large (N, C) array in blocks that stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]

ENTRIES = 2**18
"""Numbers of a block: at eight bytes two megabytes."""


def blocks(array: Floats) -> Iterator[slice]:
    """Yield slices of rows that cover ``array`` (N, C) in order."""
    step = max(1, ENTRIES // array.shape[1])
    for start in range(0, len(array), step):
        yield slice(start, min(start + step, len(array)))


def check(logits: Floats, targets: Integers, class_counts: Integers | None = None) -> None:
    """Refuse arrays that do not belong together.

    Args:
        logits: (N, C), finite, N >= 1 and C >= 2.
        targets: (N,) labels in [0, C).
        class_counts: (C,) training images, at least one of them positive; None where the function
            takes none.

    Raises:
        ValueError: their shapes differ, a label is out of range, or a logit is not finite.
    """
    if logits.ndim != 2 or len(logits) == 0 or logits.shape[1] < 2:
        raise ValueError(f"logits: expected (N, C) with N >= 1 and C >= 2, not {logits.shape}")
    num_images, num_classes = logits.shape
    if targets.shape != (num_images,):
        raise ValueError(f"targets: expected ({num_images},) as the logits, not {targets.shape}")
    if targets.min() < 0 or targets.max() >= num_classes:
        raise ValueError(f"targets: expected labels from 0 to {num_classes - 1}")
    if class_counts is not None and class_counts.shape != (num_classes,):
        raise ValueError(f"class_counts: expected ({num_classes},), not {class_counts.shape}")
    if class_counts is not None and (class_counts.min() < 0 or class_counts.max() <= 0):
        raise ValueError("class_counts: expected numbers >= 0, not all of them 0")
    # Minimum and maximum carry NaN and infinity without a temporary of N x C entries.
    if not np.isfinite([logits.min(), logits.max()]).all():
        raise ValueError("logits: expected finite numbers")


def shares(class_counts: Integers) -> Doubles:
    """Return each class's share of the training images, (C,); a class without any counts as one.

    A share of 0 has no logarithm, and no estimate can rest on a class that was never seen.

    >>> shares(np.array([3, 1])).tolist()
    [0.75, 0.25]
    """
    counts = np.maximum(class_counts, 1).astype(np.float64)
    return counts / counts.sum()


def argmax_with(logits: Floats, offsets: Doubles) -> npt.NDArray[np.int64]:
    """Return the class of the largest ``logits + offsets``, the lowest label on a tie.

    Args:
        logits: (N, C).
        offsets: (K, C), each a way to shift the classes.

    Returns:
        (K, N) labels.
    """
    found = np.empty((len(offsets), len(logits)), dtype=np.int64)
    shifts = offsets.astype(logits.dtype)
    for rows in blocks(logits):
        block = logits[rows]
        shifted = np.empty_like(block)
        for number, shift in enumerate(shifts):
            found[number, rows] = np.add(block, shift, out=shifted).argmax(axis=1)
    return found


def argmax_along(logits: Floats, offsets: Doubles) -> npt.NDArray[np.int64]:
    """Return what :func:`argmax_with` does for offsets on a straight line, in less time.

    Each class's ``logits + offsets`` is linear along the line, and where one linear function is the
    largest at two points it is so between them: only images whose class changes are looked at in
    the middle, again and again.

    Args:
        logits: (N, C).
        offsets: (K, C), points of a line in their order.

    Returns:
        (K, N) labels.
    """
    found = np.empty((len(offsets), len(logits)), dtype=np.int64)
    shifts = offsets.astype(logits.dtype)
    for rows in blocks(logits):
        _fill(found[:, rows], logits[rows], shifts)
    return found


def _fill(found: npt.NDArray[np.int64], block: Floats, shifts: Floats) -> None:
    last = len(shifts) - 1
    for end in {0, last}:
        found[end] = (block + shifts[end]).argmax(axis=1)
    parts = [(0, last, np.arange(len(block)))]
    while parts:
        low, high, images = parts.pop()
        if high - low < 2:
            continue
        stays = found[low, images] == found[high, images]
        found[low + 1 : high, images[stays]] = found[low, images[stays]]
        images = images[~stays]
        if images.size:
            middle = (low + high) // 2
            shifted = block[images]
            shifted += shifts[middle]
            found[middle, images] = shifted.argmax(axis=1)
            parts += [(low, middle, images), (middle, high, images)]


def recalls(targets: Integers, predictions: Integers, *, num_classes: int) -> Doubles:
    """Return the share of each class's images that are predicted right, (C,); NaN without images.

    >>> recalls(np.array([0, 0, 1]), np.array([0, 1, 1]), num_classes=3).tolist()
    [0.5, 1.0, nan]
    """
    images = np.bincount(targets, minlength=num_classes)
    right = np.bincount(targets[targets == predictions], minlength=num_classes)
    found = np.full(num_classes, np.nan)
    np.divide(right, images, out=found, where=images > 0)
    return found


def mean_where(values: Doubles, mask: Mask) -> float | None:
    """Return the mean of the defined values under a mask, None where there are none."""
    chosen = values[mask & ~np.isnan(values)]
    return float(chosen.mean()) if chosen.size else None
