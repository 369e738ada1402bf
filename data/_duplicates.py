"""Files of an image folder that are the same image, byte for byte."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data._folder import Listing, readable
from data._progress import progress

_SAMPLE = 4096  # bytes from the middle of a file, looked at before the whole of it
_CHUNK = 256
_MANY = 10_000  # files to open from which on the progress is shown


@dataclass(frozen=True)
class Duplicates:
    """What a folder holds more than once.

    Args:
        overlaps: One sentence for each pair of splits that have images in common.
        repeats: One sentence for each split that has an image more than once.
    """

    overlaps: tuple[str, ...]
    repeats: tuple[str, ...]


def find_duplicates(listing: Listing) -> Duplicates:
    """Find the files that have the same content, be they copies or links.

    Only files of one size are opened, and only those that agree in 4 KiB of their middle are read.

    Raises:
        DataError: If a file cannot be read.
    """
    every = list(listing.splits.values())
    names = np.concatenate([files.names for files in every])
    labels = np.concatenate([files.targets.numpy() for files in every])
    split_of = np.repeat(np.arange(len(every)), [len(files) for files in every])
    sizes = np.concatenate([files.sizes for files in every])
    groups = _same_content(listing.folder, names, sizes)

    def same(first: int, second: int) -> str:
        return f"{os.fsdecode(names[second])} = {os.fsdecode(names[first])}"

    overlaps = []
    for (a, first), (b, second) in itertools.combinations(enumerate(listing.splits), 2):
        pairs = [pair for group in groups for pair in _pairs(group, split_of, first=a, second=b)]
        if pairs:
            overlaps.append(
                f"{second} images that are in {first}, too: {len(pairs)} of {len(every[b])} "
                f"({same(*pairs[0])})"
            )
    repeats = []
    for a, split in enumerate(listing.splits):
        inside = [own for group in groups if len(own := group[split_of[group] == a]) > 1]
        if inside:
            extra = sum(len(own) - 1 for own in inside)
            repeats.append(
                f"{split} images that repeat another: {extra} of {len(every[a])} "
                f"({same(*inside[0][:2])})"
            )
        torn = [own for own in inside if (labels[own] != labels[own[0]]).any()]
        if torn:
            other = torn[0][labels[torn[0]] != labels[torn[0][0]]][0]
            repeats.append(
                f"{split} images in more than one class: {len(torn)} ({same(torn[0][0], other)})"
            )
    return Duplicates(tuple(overlaps), tuple(repeats))


def _pairs(
    group: np.ndarray, split_of: np.ndarray, *, first: int, second: int
) -> list[tuple[int, int]]:
    """Return (file of ``first``, file of ``second``) for each of a group's files in ``second``."""
    there = group[split_of[group] == first]
    here = group[split_of[group] == second]
    return [(int(there[0]), int(file)) for file in here] if len(there) else []


def _same_content(folder: Path, names: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Return the groups of equal files, two at least, each ascending."""
    groups = _grouped(np.arange(len(names)), sizes)
    for digest in (_middle, _whole):
        suspects = np.concatenate(groups) if groups else np.empty(0, dtype=np.int64)
        paths = [folder / os.fsdecode(name) for name in names[suspects]]
        digests = _all(digest, paths)
        keys = [b"%020d" % size + own for size, own in zip(sizes[suspects], digests, strict=True)]
        groups = _grouped(suspects, np.array(keys))
    return sorted(groups, key=lambda group: int(group[0]))


def _grouped(index: np.ndarray, keys: np.ndarray) -> list[np.ndarray]:
    """Return the parts of ``index`` with equal ``keys``, two at least."""
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
    return [np.sort(index[part]) for part in np.split(order, ends) if len(part) > 1]


def _all(digest: Callable[[Path], bytes], paths: list[Path]) -> Iterable[bytes]:
    """Return the digest of each file, in threads; show the progress if there are many."""
    if len(paths) < _MANY:
        with ThreadPoolExecutor() as pool:
            return list(pool.map(digest, paths))
    found: list[bytes] = []
    with (
        progress("looking for duplicates", total=len(paths)) as advance,
        ThreadPoolExecutor() as pool,
    ):
        for start in range(0, len(paths), _CHUNK):
            found += pool.map(digest, paths[start : start + _CHUNK])
            advance(len(paths[start : start + _CHUNK]))
    return found


def _middle(path: Path) -> bytes:
    with readable(path), path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size // 2 - _SAMPLE // 2))
        return hashlib.sha256(file.read(_SAMPLE)).digest()


def _whole(path: Path) -> bytes:
    with readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
