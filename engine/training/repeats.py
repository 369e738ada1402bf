"""Images that are in a data set more than once, within a split and across splits."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

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


def repeats_in_memory(dataset: data.LongTailed) -> Repeats | None:
    """Compare the images of a data set, or return None where some stay on disk.

    Reading all of their files could take longer than the rest of what a page needs.
    """
    splits = dataset.splits
    if not all(isinstance(split.images, Tensor) for split in splits.values()):
        return None
    return find_repeats(splits)


def find_repeats(splits: Mapping[str, data.Split], *, most_bits: int | None = None) -> Repeats:
    """Compare all images: decoded ones by their pixels, files by their bytes.

    Args:
        splits: by name, in the order train, val, test.
        most_bits: bits of 64 in which the hashes of images that look alike may differ; None does
            not look for such.
    """
    contents = {name: list(data.content_digests(split.images)) for name, split in splits.items()}
    near = None
    if most_bits is not None:
        hashes = {name: data.image_hashes(split.images) for name, split in splits.items()}
        near = {
            (a, b): len(data.near_pairs(hashes[a], hashes[b], most_bits=most_bits).second)
            for a, b in itertools.combinations(splits, 2)
        }
    return Repeats(
        within={name: len(own) - len(set(own)) for name, own in contents.items()},
        across={
            (a, b): sum(content in known for content in contents[b])
            for a, b in itertools.combinations(splits, 2)
            for known in [set(contents[a])]
        },
        near=near,
    )
