"""The listing of an image folder: which files there are, of which class."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data._base import DataError


@dataclass(frozen=True, eq=False)
class Files:
    """The files of one split, by class and then by name.

    Args:
        names: (N,) bytes, relative to the folder of the data set.
        sizes: (N,) int64, bytes of each file.
        times: (N,) int64, time of last change in nanoseconds.
        targets: (N,) int64, class of each file.
    """

    names: np.ndarray
    sizes: np.ndarray
    times: np.ndarray
    targets: Tensor

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class Listing:
    """An image folder: class names sorted by name, and the files of each split."""

    folder: Path
    class_names: tuple[str, ...]
    splits: dict[str, Files]


def list_folder(folder: Path) -> Listing:
    """List train/<class>/*, test/<class>/* and, if it is there, val/<class>/*.

    Classes are the folders in ``train`` sorted by name; names that begin with a dot, and files
    beside the class folders, are left out.

    Raises:
        DataError: If a folder is missing, empty or cannot be read, a class is only in test or val,
            the name of a class is no UTF-8, or a class folder holds anything but files.
    """
    with readable(folder):
        for split in ("train", "test"):
            if not (folder / split).is_dir():
                raise DataError(
                    f"data.path: {folder} has no folder {split}: images are expected in "
                    f"{split}/<class>/, beside {'test' if split == 'train' else 'train'}/<class>/"
                )
        class_names = _class_folders(folder / "train")
        names = ["train", "val", "test"] if os.path.lexists(folder / "val") else ["train", "test"]
        splits = {name: _list_split(folder, name, class_names=class_names) for name in names}
    return Listing(folder, tuple(class_names), splits)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the system says against reading files below ``path`` into one line."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"data.path: {error.filename or path} cannot be read ({error.strerror})"
        ) from error


def _class_folders(split: Path) -> list[str]:
    with os.scandir(split) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if not names:
        raise DataError(f"data.path: {split} has no class folders: expected one a class")
    for name in names:
        if any("\udc80" <= character <= "\udcff" for character in name):
            raise DataError(f"data.path: {split / name} has a name that is no UTF-8: rename it")
    return names


def _list_split(folder: Path, split: str, *, class_names: list[str]) -> Files:
    here = _class_folders(folder / split)
    unknown = sorted(set(here) - set(class_names))
    if unknown:
        raise DataError(
            f"data.path: class {unknown[0]!r} is in {folder / split} but not in "
            f"{folder / 'train'}: every class needs training images"
        )
    names: list[bytes] = []
    facts: list[tuple[int, int]] = []
    targets: list[int] = []
    for name in here:
        files = _class_files(folder / split / name)
        names += [os.fsencode(f"{split}/{name}/{file}") for file in files]
        facts += files.values()
        targets += [class_names.index(name)] * len(files)
    sizes, times = np.array(facts, dtype=np.int64).T
    return Files(np.array(names), sizes, times, torch.tensor(targets))


def _class_files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of last change of each file, by name."""
    files: dict[str, tuple[int, int]] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                raise DataError(
                    f"data.path: {entry.path} is a folder in a class folder: images are expected "
                    "directly in the folder of their class"
                )
            facts = entry.stat()
            if not stat.S_ISREG(facts.st_mode):
                raise DataError(f"data.path: {entry.path} is no file: replace it or remove it")
            files[entry.name] = (facts.st_size, facts.st_mtime_ns)
    if not files:
        raise DataError(f"data.path: {folder} has no images: fill it or remove it")
    return files
