"""Images that are there more than once, within a split and in two splits, in sentences."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from data._base import Pool, Split
from data._folder import Files
from data._overlaps import content_digests, number_contents


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


def compare_splits(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Return drawn splits with the numbers of what their images show.

    The data set has given them, else images in memory are compared by their pixels. Where it has
    not and images stay on disk they are still None: every file would have to be read.
    """
    are_known = all(split.contents is not None for split in splits.values())
    if are_known or not all(isinstance(split.images, Tensor) for split in splits.values()):
        return dict(splits)
    numbers = number_contents(
        {name: content_digests(split.images) for name, split in splits.items()}
    )
    return {name: replace(split, contents=numbers[name]) for name, split in splits.items()}


def compare_files(pool: Pool) -> Pool:
    """Return a pool whose images on disk have numbers of what they show, by the bytes of files.

    Every file is read where the data set has not given them; the splits are drawn as without.

    Raises:
        DataError: If a file cannot be read.
    """
    every = {"train": pool.train, "val": pool.val, "test": pool.test}
    parts = {name: part for name, part in every.items() if part is not None}
    are_known = all(part.contents is not None for part in parts.values())
    if are_known or all(isinstance(part.images, Tensor) for part in parts.values()):
        return pool
    numbers = number_contents({name: content_digests(part.images) for name, part in parts.items()})
    looked_at = {name: replace(part, contents=numbers[name]) for name, part in parts.items()}
    return replace(
        pool,
        train=looked_at["train"],
        val=looked_at.get("val"),
        test=looked_at["test"],
        joins_copies=False,
    )


def told_apart(splits: Mapping[str, Split]) -> dict[str, Told] | None:
    """Return what the images of splits are told apart by; None where nobody compared them."""
    told = {
        name: Told(split.contents, split.targets.numpy(), split.name)
        for name, split in splits.items()
        if split.contents is not None
    }
    return told if len(told) == len(splits) else None


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
