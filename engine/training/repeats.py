"""Images that are in a data set more than once, within a split and across splits."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

import data


class Repeats(NamedTuple):
    """How often images repeat.

    Attributes:
        within: images of a split that repeat an earlier one of it, by split.
        across: images of the second split that are in the first, too, by pair of splits.
        near: the same of images that look alike (see ``data.image_hashes``); None where
            nobody asked.
    """

    within: dict[str, int]
    across: dict[tuple[str, str], int]
    near: dict[tuple[str, str], int] | None


def find_repeats(
    splits: Mapping[str, data.Split], *, most_bits: int | None = None
) -> Repeats | None:
    """Count equal images, as the notes of the splits do: by ``data.Split.contents``.

    Args:
        splits: by name, in the order train, val, test.
        most_bits: bits of 64 in which the hashes of images that look alike may differ; None does
            not look for such.

    Returns:
        None where nobody compared the images.
    """
    contents = {
        name: split.contents for name, split in splits.items() if split.contents is not None
    }
    if len(contents) < len(splits):
        return None
    near = None
    if most_bits is not None:
        hashes = {name: data.image_hashes(split.images) for name, split in splits.items()}
        near = {
            (a, b): len(data.near_pairs(hashes[a], hashes[b], most_bits=most_bits).second)
            for a, b in itertools.combinations(splits, 2)
        }
    return Repeats(
        within={
            # Sorted: numpy's own unique hashes, which is slow where all differ.
            name: int((np.diff(np.sort(own)) == 0).sum())
            for name, own in contents.items()
        },
        across={
            (a, b): int(np.isin(contents[b], contents[a]).sum())
            for a, b in itertools.combinations(splits, 2)
        },
        near=near,
    )
