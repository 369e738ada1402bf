"""Images that are there more than once, within a split and in two splits, in sentences."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from data._base import Split
from data._folder import Files
from data._overlaps import content_digests


@dataclass(frozen=True, eq=False)
class Told:
    """What the N images of a split are told apart by, and what they are called.

    Args:
        contents: (N,) number of what each image shows, equal where images are.
        labels: (N,) class of each.
        name: What the image at a position is called in sentences.
    """

    contents: np.ndarray
    labels: np.ndarray
    name: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.contents)


def told_files(files: Files, contents: np.ndarray) -> Told:
    """Return what the files of a listing are told apart by."""
    return Told(contents, files.targets.numpy(), lambda at: os.fsdecode(files.names[at]))


def told_apart(splits: Mapping[str, Split]) -> dict[str, Told] | None:
    """Return what the images of drawn splits are told apart by, in the order train, val, test.

    That is what their data set says of their contents, else their pixels; None where it says
    nothing and they stay on disk, since every file would have to be read.
    """
    contents = [split.contents for split in splits.values()]
    if any(own is None for own in contents):
        if not all(isinstance(split.images, Tensor) for split in splits.values()):
            return None
        contents = _of_pixels(splits)
    return {
        name: Told(own, split.targets.numpy(), split.name)
        for (name, split), own in zip(splits.items(), contents, strict=True)
        if own is not None
    }


def _of_pixels(splits: Mapping[str, Split]) -> list[np.ndarray | None]:
    digests = [list(content_digests(split.images)) for split in splits.values()]
    numbers: dict[bytes, int] = {}
    return [np.array([numbers.setdefault(d, len(numbers)) for d in own]) for own in digests]


def across_notes(splits: Mapping[str, Told]) -> tuple[str, ...]:
    """Return a sentence for each pair of splits that have images in common, in their order."""
    notes = []
    for (first, a), (second, b) in itertools.combinations(splits.items(), 2):
        known, where = np.unique(a.contents, return_index=True)
        both = np.flatnonzero(np.isin(b.contents, known))
        if len(both):
            origin = where[np.searchsorted(known, b.contents[both[0]])]
            notes.append(
                f"{second} images that are in {first}, too: {len(both):,} of {len(b):,} "
                f"({b.name(int(both[0]))} = {a.name(int(origin))})"
            )
    return tuple(notes)


def within_notes(splits: Mapping[str, Told]) -> tuple[str, ...]:
    """Return a sentence for each split with images more than once, or in more than one class."""
    notes = []
    for split, own in splits.items():
        _, first, number = np.unique(own.contents, return_index=True, return_inverse=True)
        again = np.flatnonzero(first[number] != np.arange(len(own)))

        def pair(position: int, first: np.ndarray = first[number], own: Told = own) -> str:
            return f"({own.name(position)} = {own.name(int(first[position]))})"

        if len(again):
            notes.append(
                f"{split} images that repeat another: {len(again):,} of {len(own):,} "
                f"{pair(int(again[0]))}"
            )
        torn = again[own.labels[again] != own.labels[first[number[again]]]]
        if len(torn):
            num = len(np.unique(number[torn]))
            notes.append(f"{split} images in more than one class: {num:,} {pair(int(torn[0]))}")
    return tuple(notes)
