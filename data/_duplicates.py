"""Files of an image folder that are the same image, byte for byte."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from data._folder import Compare, Listing, readable
from data._progress import of_files

_SAMPLE = 4096  # bytes from the middle of a file, looked at before the whole of it
_MANY = 10_000  # files to open from which on the progress is shown


def equal_files(listing: Listing) -> np.ndarray:
    """Return the files with the content of an earlier one, be they copies or links, int64 (M, 2).

    A row is the position of a file and that of the first one with its content, among the files of
    all splits, one after another. Only files of one size are opened, and only those that agree in
    4 KiB of their middle are read.

    Raises:
        DataError: If a file cannot be read.
    """
    every = list(listing.splits.values())
    names = np.concatenate([files.names for files in every])
    sizes = np.concatenate([files.sizes for files in every])
    groups = _same_content(listing.folder, names, sizes)
    pairs = [(int(file), int(group[0])) for group in groups for file in group[1:]]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def numbered(listing: Listing, equal: np.ndarray) -> dict[str, np.ndarray]:
    """Return a number for each file (N,), the same for equal ones, by split.

    Args:
        listing: The files.
        equal: As :func:`equal_files` has them.
    """
    sizes = [len(files) for files in listing.splits.values()]
    numbers = np.arange(sum(sizes))
    numbers[equal[:, 0]] = equal[:, 1]
    return dict(zip(listing.splits, np.split(numbers, np.cumsum(sizes)[:-1]), strict=True))


def compare_readable(
    listing: Listing, without: Collection[Path], compare: Compare
) -> dict[str, np.ndarray]:
    """Return a number for each file (N,), the same for equal ones; one of its own if unreadable.

    Args:
        listing: The files.
        without: Those that cannot be read.
        compare: What numbers the others.

    Raises:
        DataError: If another file cannot be read, or a split has no other.
    """
    if not without:
        return dict(compare(listing))
    kept = listing.without(without)
    known = compare(kept)
    total = sum(len(files) for files in listing.splits.values())
    found = {}
    for split, files in listing.splits.items():
        is_kept = np.isin(files.names, kept.splits[split].names)
        numbers = -1 - np.arange(total, total + len(files))
        numbers[is_kept] = known[split]
        found[split] = numbers
        total += len(files)
    return found


def _same_content(folder: Path, names: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Return the groups of equal files, two at least, each ascending."""
    groups = _grouped(np.arange(len(names)), sizes)
    for digest in (_middle, _whole):
        suspects = np.concatenate(groups) if groups else np.empty(0, dtype=np.int64)
        paths = [folder / os.fsdecode(name) for name in names[suspects]]
        digests = of_files(
            digest, paths, total=len(paths), doing="looking for duplicates", least=_MANY
        )
        keys = [b"%020d" % size + own for size, own in zip(sizes[suspects], digests, strict=True)]
        groups = _grouped(suspects, np.array(keys))
    return sorted(groups, key=lambda group: int(group[0]))


def _grouped(index: np.ndarray, keys: np.ndarray) -> list[np.ndarray]:
    """Return the parts of ``index`` with equal ``keys``, two at least."""
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
    return [np.sort(index[part]) for part in np.split(order, ends) if len(part) > 1]


def _middle(path: Path) -> bytes:
    with readable(path), path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size // 2 - _SAMPLE // 2))
        return hashlib.sha256(file.read(_SAMPLE)).digest()


def _whole(path: Path) -> bytes:
    with readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
