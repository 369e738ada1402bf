"""The listing of an image folder: which files there are, of which split and class."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data._base import DataError, expanded
from data._folder_groups import BY_FOLDER, check_group_by, group_names, number_groups
from data._groups import merge_groups, split_groups
from data._held_out import hold_out

_VALIDATION_NAMES = ("val", "valid", "validation")
# What operating systems and storage boxes leave behind, in lower case; names with a leading dot
# (.DS_Store, ._photo.jpg) are left out anyway.
_LEFT_BEHIND = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin"}
)
_MOST_NAMED = 5  # folders listed in one line


@dataclass(frozen=True, eq=False)
class Files:
    """The files of one split, by class and then by name.

    Args:
        names: (N,) bytes, relative to the folder of the data set.
        sizes: (N,) int64, bytes of each file.
        times: (N,) int64, time of last change in nanoseconds.
        targets: (N,) int64, class of each file.
        groups: (N,) int64, number of the group of each file, the same in all splits; None where
            nothing is known of groups.
        contents: (N,) int64, as of :class:`data._base.Labelled`; None where nobody looked yet.
    """

    names: np.ndarray
    sizes: np.ndarray
    times: np.ndarray
    targets: Tensor
    groups: np.ndarray | None = None
    contents: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    def select(self, index: np.ndarray) -> Files:
        """Return the files at ``index`` (M,), in that order."""
        targets = self.targets[torch.from_numpy(index)]
        groups, contents = (
            None if own is None else own[index] for own in (self.groups, self.contents)
        )
        return Files(
            self.names[index], self.sizes[index], self.times[index], targets, groups, contents
        )


@dataclass(frozen=True, eq=False)
class Listing:
    """An image folder: class names sorted by name, the files of each split, and what to say."""

    folder: Path
    class_names: tuple[str, ...]
    splits: dict[str, Files]
    notes: tuple[str, ...] = ()

    def paths(self) -> list[Path]:
        """Return the files of all splits."""
        names = [name for files in self.splits.values() for name in files.names.tolist()]
        return [self.folder / os.fsdecode(name) for name in names]

    def without(self, paths: Collection[Path]) -> Listing:
        """Return the listing without some of its files.

        Raises:
            DataError: If a split has no file, be it that all are left out or that none was there.
        """
        splits = self.splits
        if paths:
            left_out = np.array([os.fsencode(path.relative_to(self.folder)) for path in paths])
            splits = {
                split: files.select(np.flatnonzero(~np.isin(files.names, left_out)))
                for split, files in splits.items()
            }
        for split, files in splits.items():
            if not len(files):
                raise DataError(f"{self.folder}: no {split} image can be read")
        return replace(self, splits=splits)


Compare = Callable[[Listing], Mapping[str, np.ndarray]]
"""What numbers the files of a listing by their content, by split: the same for equal ones."""


def list_folder(
    folder: Path,
    *,
    test_fraction: float | None = None,
    group_by: str | None = None,
    compare: Compare | None = None,
) -> Listing:
    """List train/<class>/*, test/<class>/* and, if it is there, val/<class>/*.

    ``valid`` and ``validation`` are other names for ``val``. With ``test_fraction`` there is no
    ``test``: it is drawn from ``train``, or from <class>/* where there is no ``train`` either.
    Classes are the folders in ``train`` sorted by name; names that begin with a dot, files beside
    the class folders, and what operating systems leave behind are left out.

    Args:
        folder: The folder of the data set.
        test_fraction: Share of each class's files that is drawn as the test split.
        group_by: What images belong together by, as for :func:`data._folder_groups.group_names`;
            with ``folder`` files are one folder further down, and test is drawn by group.
        compare: What numbers files by their content, by split, before test is drawn; copies are
            then kept together.

    Raises:
        DataError: If a folder is missing, empty or cannot be read, a class is only in test or val,
            the name of a class is no UTF-8, or a class folder holds anything but files.
    """
    if group_by is not None:
        check_group_by(group_by)
    with readable(folder):
        places = _split_places(folder, is_drawn=test_fraction is not None)
        class_names = _class_folders(folder / places["train"])
        splits = {
            name: _list_split(
                folder,
                place,
                class_names=class_names,
                train=places["train"],
                group_by=group_by,
            )
            for name, place in places.items()
        }
        notes = _unused_notes(folder, places)
    if group_by is not None:
        numbers = number_groups(
            {name: group_names(files.names, group_by) for name, files in splits.items()}
        )
        splits = {name: replace(files, groups=numbers[name]) for name, files in splits.items()}
    if test_fraction is not None:
        if compare is not None:
            contents = compare(Listing(folder, tuple(class_names), splits))
            splits = {name: replace(own, contents=contents[name]) for name, own in splits.items()}
        prefix = b"" if places["train"] == "." else os.fsencode(f"{places['train']}/")
        notes.append(move_test(splits, test_fraction, prefix=prefix))
    order = [name for name in ("train", "val", "test") if name in splits]
    return Listing(folder, tuple(class_names), {name: splits[name] for name in order}, tuple(notes))


@contextmanager
def readable(path: Path, *, key: str = "data.path") -> Iterator[None]:
    """Turn an error of the system while reading below ``path`` into one line that names it.

    Args:
        path: What is read.
        key: The config key that asked for it.

    Raises:
        DataError: In place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        named = error.filename or path
        where = os.fsdecode(named) if isinstance(named, bytes) else named
        raise DataError(f"{key}: {where} cannot be read ({error.strerror})") from error


def find_folder(root: Path, path: str, *, key: str) -> Path:
    """Return the folder that a key names, from here or else from the folder of raw data.

    Args:
        root: The folder of raw data.
        path: The folder as spelled.
        key: The config key.

    Raises:
        DataError: If there is none.
    """
    given = expanded(path, key=key)
    candidates = [given.absolute()]
    if not given.is_absolute():
        candidates.append(root / path)
    for folder in candidates:
        with readable(folder, key=key):
            if folder.is_dir():
                return folder
    places = " and ".join(str(folder) for folder in candidates)
    raise DataError(f"{key}={path} is not a folder: looked for {places}")


def _split_places(folder: Path, *, is_drawn: bool) -> dict[str, str]:
    """Return the folder of each split, relative to ``folder``; test has none where it is drawn."""
    found = [name for name in ("train", "test") if (folder / name).is_dir()]
    validation = [name for name in _VALIDATION_NAMES if os.path.lexists(folder / name)]
    if len(validation) > 1:
        raise DataError(
            f"data.path: {folder} has the folders {' and '.join(validation)}, which are names of "
            "one split: keep one of them"
        )
    places = {"train": "train", **({"val": validation[0]} if validation else {}), "test": "test"}
    if not is_drawn:
        for split in ("train", "test"):
            if split not in found:
                raise DataError(_missing(folder, split))
        return places
    if "test" in found:
        raise DataError(
            f"data.test_fraction: has no effect, {folder} has a folder test; leave it out"
        )
    del places["test"]
    if "train" not in found:
        if validation:
            raise DataError(_missing(folder, "train"))
        places["train"] = "."
    return places


def _missing(folder: Path, split: str) -> str:
    """Return the message about a folder without ``split``, with what it has instead."""
    line = (
        f"data.path: {folder} has no folder {split}: images are expected in {split}/<class>/, "
        f"beside {'test' if split == 'train' else 'train'}/<class>/"
    )
    here = _folders(folder)
    others = [name for name in here if name not in ("train", "test", *_VALIDATION_NAMES)]
    if split == "test":
        return f"{line}; data.test_fraction=0.2 draws a fifth of train as test"
    if others and len(others) == len(here):
        return (
            f"{line}; if its folders are the classes ({_named(others)}), data.test_fraction=0.2 "
            "draws a fifth of each as test"
        )
    return line + (f"; it has {_named(here)}" if here else "")


def _unused_notes(folder: Path, places: dict[str, str]) -> list[str]:
    """Name the folders that are no split; one of them may have been meant to be."""
    if places["train"] == ".":
        return []
    unused = [name for name in _folders(folder) if name not in places.values()]
    used = ", ".join(places.values())
    return [f"not used: {_named(unused)} (beside {used})"] if unused else []


def _named(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (" ..." if len(names) > _MOST_NAMED else "")


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not _is_left_out(e.name))


def _class_folders(split: Path) -> list[str]:
    names = _folders(split)
    if not names:
        raise DataError(f"data.path: {split} has no class folders: expected one a class")
    for name in names:
        if any("\udc80" <= character <= "\udcff" for character in name):
            raise DataError(f"data.path: {split / name} has a name that is no UTF-8: rename it")
    return names


def _list_split(
    folder: Path, place: str, *, class_names: list[str], train: str, group_by: str | None
) -> Files:
    here = _class_folders(folder / place)
    unknown = sorted(set(here) - set(class_names))
    if unknown:
        raise DataError(
            f"data.path: class {unknown[0]!r} is in {folder / place} but not in "
            f"{folder / train}: every class needs training images"
        )
    names: list[bytes] = []
    facts: list[tuple[int, int]] = []
    targets: list[int] = []
    prefix = "" if place == "." else f"{place}/"
    for name in here:
        files = _class_files(folder / place / name, group_by=group_by)
        names += [os.fsencode(f"{prefix}{name}/{file}") for file in files]
        facts += files.values()
        targets += [class_names.index(name)] * len(files)
    sizes, times = np.array(facts, dtype=np.int64).T
    return Files(np.array(names), sizes, times, torch.tensor(targets))


def _class_files(folder: Path, *, group_by: str | None) -> dict[str, tuple[int, int]]:
    """Return size and time of last change of each file, by name.

    Where ``group_by`` is ``folder``, files are in folders of their groups.
    """
    if group_by == BY_FOLDER:
        groups = _folders(folder)
        with os.scandir(folder) as entries:
            loose = [e.path for e in entries if not e.is_dir() and not _is_left_out(e.name)]
        if loose or not groups:
            raise DataError(
                f"data.group_by=folder: {min(loose, default=str(folder))} is no folder of images: "
                "they are expected in <class>/<group>/"
            )
        return {
            f"{group}/{name}": facts
            for group in groups
            for name, facts in _own_files(folder / group, group_by=group_by).items()
        }
    return _own_files(folder, group_by=group_by)


def _own_files(folder: Path, *, group_by: str | None) -> dict[str, tuple[int, int]]:
    """Return size and time of last change of each file of a folder of images, by name."""
    files: dict[str, tuple[int, int]] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if _is_left_out(entry.name):
                continue
            if entry.is_dir():
                raise DataError(_nested(entry.path, group_by))
            facts = entry.stat()
            if not stat.S_ISREG(facts.st_mode):
                raise DataError(f"data.path: {entry.path} is not a file: replace it or remove it")
            files[entry.name] = (facts.st_size, facts.st_mtime_ns)
    if not files:
        raise DataError(f"data.path: {folder} has no images: fill it or remove it")
    return files


def _nested(path: str, group_by: str | None) -> str:
    """Return the message about a folder where images are expected."""
    if group_by == BY_FOLDER:
        return (
            f"data.group_by=folder: {path} is a folder in the folder of a group: images are "
            "expected in <class>/<group>/"
        )
    if group_by is not None:
        return (
            f"data.group_by={group_by}: is searched in the names of files in the folder of their "
            f"class, and {path} is a folder there; data.group_by=folder makes a group of each"
        )
    return (
        f"data.path: {path} is a folder in a class folder: images are expected directly in the "
        "folder of their class, or, if these are groups of images that belong together, with "
        "data.group_by=folder"
    )


def move_test(
    splits: dict[str, Files], fraction: float, *, prefix: bytes = b"", may_part_copies: bool = False
) -> str:
    """Move a share of ``train`` to ``test``, groups and copies as a whole; return what to say.

    Args:
        splits: By name; changed in place.
        fraction: Share of each class.
        prefix: Of the name of every training file, which no draw goes by: that of a split's folder.
        may_part_copies: Whether groups may be drawn one by one, though they share an image, where
            no others can be spared.

    Raises:
        DataError: If nothing can be moved.
    """
    whole = splits["train"]
    if whole.groups is None:
        is_test = _draw_by_name(whole, fraction, prefix=prefix)
    else:
        is_test = _draw_groups(whole, whole.groups, fraction, may_part_copies=may_part_copies)
    splits["train"] = whole.select(np.flatnonzero(~is_test))
    splits["test"] = whole.select(np.flatnonzero(is_test))
    how = "the names of its files"
    if whole.groups is not None:
        how = "group, as nearly as whole groups allow"
    return (
        f"test is {fraction:g} of each class, drawn by {how}: {is_test.sum()} images "
        "(data.test_fraction)"
    )


def _draw_groups(
    files: Files, groups: np.ndarray, fraction: float, *, may_part_copies: bool
) -> np.ndarray:
    """Return which files (N,) are test: those of whole groups, that share an image as one."""
    merged = [] if files.contents is None else [merge_groups(groups, files.contents)]
    for whole in (*merged, *([groups] if may_part_copies or not merged else [])):
        parts = split_groups(files.targets.numpy(), whole, shares=(1 - fraction, fraction))
        if parts.any():
            return parts == 1
    why = "; those that share an image count as one" if merged and not may_part_copies else ""
    raise DataError(
        f"data.test_fraction={fraction:g}: leaves test empty, no group can be spared{why}"
    )


def _draw_by_name(files: Files, fraction: float, *, prefix: bytes) -> np.ndarray:
    """Return which files (N,) are test: those whose names have the smallest hashes in their class.

    So the draw is the same on every machine, and few files move when some are added. Every class
    keeps a training image, and gives a test image if it has two. Files of equal content are drawn
    together, as far as it is known.
    """
    digests = np.array(
        [hashlib.sha256(name.removeprefix(prefix)).digest() for name in files.names.tolist()]
    )
    labels = files.targets.numpy()
    orders, sizes = [], []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        wanted = max(1, int(fraction * len(own) + 0.5))
        orders.append(own[np.argsort(digests[own], kind="stable")][::-1])
        sizes.append(min(wanted, len(own) - 1))
    is_test = hold_out(orders, np.array(sizes), contents=files.contents)
    if not is_test.any():
        raise DataError(
            f"data.test_fraction={fraction:g}: leaves test empty, every class has one image only"
            + (", or copies of one" if any(sizes) else "")
        )
    return is_test
