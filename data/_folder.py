"""The listing of an image folder: which files there are, of which class."""

from __future__ import annotations

import os
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
        DataError: If a folder is missing or empty, a class is only in test or val, or a class
            folder holds folders.
    """
    for split in ("train", "test"):
        if not (folder / split).is_dir():
            raise DataError(
                f"data.path: {folder} has no folder {split}: images are expected in "
                f"{split}/<class>/, beside {'test' if split == 'train' else 'train'}/<class>/"
            )
    class_names = _class_folders(folder / "train")
    if not class_names:
        raise DataError(f"data.path: {folder / 'train'} has no class folders: expected one a class")
    names = [name for name in ("train", "val", "test") if (folder / name).is_dir()]
    splits = {name: _list_split(folder, name, class_names=class_names) for name in names}
    return Listing(folder, tuple(class_names), splits)


def _class_folders(split: Path) -> list[str]:
    with os.scandir(split) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _list_split(folder: Path, split: str, *, class_names: list[str]) -> Files:
    here = _class_folders(folder / split)
    unknown = sorted(set(here) - set(class_names))
    if unknown:
        raise DataError(
            f"data.path: class {unknown[0]!r} is in {folder / split} but not in "
            f"{folder / 'train'}: every class needs training images"
        )
    if not here:
        raise DataError(f"data.path: {folder / split} has no class folders: expected one a class")
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
            try:
                facts = entry.stat()
            except OSError as error:
                raise DataError(f"{entry.path} cannot be read ({error.strerror})") from error
            files[entry.name] = (facts.st_size, facts.st_mtime_ns)
    if not files:
        raise DataError(f"data.path: {folder} has no images: fill it or remove it")
    return files
