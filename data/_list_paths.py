"""The paths of lists: below one folder, each once, in one split, and all of them there.

No image is opened, and each folder is listed once: a million calls of the system for a million
files take minutes where the files are far away.
"""

from __future__ import annotations

import errno
import itertools
import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data._base import DataError, Refuse
from data._folder import readable
from data._list_file import ListFile

_CHUNK = 100_000  # paths looked at as a matrix at a time
_LONGEST = 200  # characters of a path in a message
_MOST_NAMED = 5  # files named in one message
# What opening a folder fails with that is not there, or cannot be there under such a name.
_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_DRIVE = re.compile(rb"[A-Za-z]:[\\/]")


class Found(NamedTuple):
    """What is known of N files without opening one.

    Args:
        sizes: (N,) int64, bytes of each file; 0 where that was not asked for.
        times: (N,) int64, time of last change in nanoseconds; 0 likewise.
        is_there: (N,) bool.
    """

    sizes: np.ndarray
    times: np.ndarray
    is_there: np.ndarray


class Folders(NamedTuple):
    """The folders of N paths.

    Args:
        names: F folders without a slash at their end, in the order of their first path.
        number_of: (N,) int64, which of them each path is in.
    """

    names: list[bytes]
    number_of: np.ndarray


def folders_of(paths: np.ndarray) -> Folders:
    """Return the folders of paths (N,), bytes.

    Looked at as a matrix of bytes: a million objects of Python take ten times as long. Lists name
    the images of a folder together more often than not, so that of a run one path is looked at.
    """
    numbers: dict[bytes, int] = {}
    index = np.empty(len(paths), dtype=np.int64)
    for start in range(0, len(paths), _CHUNK):
        folders = _up_to_the_last_slash(paths[start : start + _CHUNK])
        is_first = np.concatenate([[True], folders[1:] != folders[:-1]])
        own = [numbers.setdefault(name, len(numbers)) for name in folders[is_first].tolist()]
        index[start : start + _CHUNK] = np.array(own)[np.cumsum(is_first) - 1]
    return Folders(list(numbers), index)


def _up_to_the_last_slash(paths: np.ndarray) -> np.ndarray:
    """Return what is before the last slash of each path, nothing where there is none."""
    shape = len(paths), paths.dtype.itemsize
    # Letter by letter, of all paths at once: path by path it takes three times as long.
    letters = np.ascontiguousarray(paths).view(np.uint8).reshape(shape).T.copy()
    last = np.zeros(len(paths), dtype=np.int32)
    for position, letter in enumerate(letters):
        last[letter == ord("/")] = position
    for position, letter in enumerate(letters):
        letter[position >= last] = 0
    return np.ascontiguousarray(letters.T).view(paths.dtype).reshape(len(paths))


def relative_paths(listed: ListFile, folder: Path) -> tuple[ListFile, tuple[str, ...]]:
    """Return the list with paths that start from ``folder`` and are spelled one way.

    Args:
        listed: A list as read.
        folder: The folder of the images.

    Returns:
        The list, and what to say about it.

    Raises:
        DataError: If a path leads out of the folder.
    """
    paths = listed.paths
    unusual = np.char.startswith(paths, b"/") | (np.char.find(paths, b":") == 1)
    for part in (b"./", b"//", b"/."):
        unusual |= np.char.find(paths, part) >= 0
    if not unusual.any():
        return listed, ()
    changed = paths.tolist()
    absolute = 0
    for position in np.flatnonzero(unusual):
        path = changed[position]
        plain = posixpath.normpath(path)
        if path.startswith(b"/"):
            plain = os.path.relpath(plain, os.fsencode(folder))
            absolute += not plain.startswith(b"..")
        if plain == b".." or plain.startswith(b"../") or _DRIVE.match(path):
            raise DataError(_climbing(listed, int(position), folder))
        changed[position] = plain
    notes: tuple[str, ...] = ()
    if absolute:
        notes = (f"{listed.file.name}: {absolute} paths are absolute and lead into {folder}",)
    return replace(listed, paths=np.array(changed)), notes


def _climbing(listed: ListFile, position: int, folder: Path) -> str:
    path = listed.paths[position]
    place = f"{listed.key}: {listed.place(position)}: {os.fsdecode(path)}"
    if path.startswith(b"/") or _DRIVE.match(path):
        return f"{place} is absolute; paths start from data.root ({folder})"
    return f"{place} leads out of data.root ({folder})"


def without_repeats(listed: ListFile) -> tuple[ListFile, tuple[str, ...]]:
    """Return the list with every image once; lines that repeat another are left out and counted.

    Raises:
        DataError: If an image has two labels, or is in two groups.
    """
    hashes = _hashes(listed.paths)
    if _are_distinct(hashes):  # as is usual, and much faster to learn than where each stands
        return listed, ()
    _, firsts, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    first = firsts[inverse]  # where the path of each line stands first
    repeats = np.flatnonzero(first != np.arange(len(listed)))
    for what, own in (("has the label", listed.labels), ("is in the group", listed.groups)):
        if own is None:
            continue
        torn = repeats[own[repeats] != own[first[repeats]]]
        if len(torn):
            again, before = int(torn[0]), int(first[torn[0]])
            more = f" ({len(torn)} such lines)" if len(torn) > 1 else ""
            raise DataError(
                f"{listed.key}: {listed.place(again)}: {os.fsdecode(listed.paths[again])} {what} "
                f"{os.fsdecode(own[again])}, and {os.fsdecode(own[before])} in "
                f"{listed.place(before).rpartition(', ')[2]}{more}: keep one of them"
            )
    note = (
        f"{listed.file.name}: {len(repeats)} lines repeat another "
        f"({listed.places[repeats[0]]} = {listed.places[first[repeats[0]]]}): each image counts "
        "once"
    )
    return listed.select(np.flatnonzero(first == np.arange(len(listed)))), (note,)


def check_apart(lists: Mapping[str, ListFile], *, refuse: Refuse) -> None:
    """Refuse an image that is in two splits, naming the first and how many there are.

    Every list has each of its images once.
    """
    hashes = {listed.key: _hashes(listed.paths) for listed in lists.values()}
    # As is usual, and much faster than to look each list up in another.
    if _are_distinct(np.concatenate(list(hashes.values()))):
        return
    for one, other in itertools.combinations(lists.values(), 2):
        there = np.flatnonzero(np.isin(hashes[other.key], hashes[one.key]))
        if not len(there):
            continue
        path = other.paths[there[0]]
        here = int(np.flatnonzero(one.paths == path)[0])
        refuse(
            f"{other.key}: {other.place(int(there[0]))}: {os.fsdecode(path)} is in "
            f"{one.place(here)}, too; {len(there)} of {len(other)} images are in both splits: "
            "remove them from one"
        )


def look_up(listed: ListFile, folder: Path, *, with_facts: bool, refuse: Refuse) -> Found:
    """Find the files of a list.

    Args:
        listed: A list whose paths start from ``folder``.
        folder: The folder of the images.
        with_facts: Whether to ask for size and time of each, which is a call of the system a file.
        refuse: What is done with a sentence about missing files: five are named, all counted.
    """
    sizes, times = (np.zeros(len(listed), dtype=np.int64) for _ in range(2))
    missing: list[int] = []
    folders = folders_of(listed.paths)
    by_folder = np.argsort(folders.number_of, kind="stable")
    ends = np.bincount(folders.number_of, minlength=len(folders.names)).cumsum()
    for name, positions in zip(folders.names, np.split(by_folder, ends[:-1]), strict=True):
        files = _files(folder, name, key=listed.key)
        paths = listed.paths[positions].tolist()
        if not files.keys() >= set(paths):
            missing += [
                at for at, path in zip(positions.tolist(), paths, strict=True) if path not in files
            ]
            is_known = [path in files for path in paths]
            positions, paths = positions[is_known], [path for path in paths if path in files]
        if with_facts:
            with readable(folder, key=listed.key):
                facts = [files[path].stat() for path in paths]
            sizes[positions] = [own.st_size for own in facts]
            times[positions] = [own.st_mtime_ns for own in facts]
    is_there = np.ones(len(listed), dtype=bool)
    if missing:
        refuse(_missing(listed, sorted(missing), folder))
        is_there[missing] = False
    return Found(sizes, times, is_there)


def _files(root: Path, name: bytes, *, key: str) -> dict[bytes, os.DirEntry[bytes]]:
    """Return the files of a folder by their path from ``root``, links to files among them.

    There are none where there is no folder.
    """
    start = name + b"/" if name else b""
    folder = os.fsencode(root / os.fsdecode(name))
    try:
        with readable(root, key=key), os.scandir(folder) as entries:
            return {start + entry.name: entry for entry in entries if entry.is_file()}
    except DataError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _NO_FOLDER:
            return {}
        raise


def _missing(listed: ListFile, missing: list[int], folder: Path) -> str:
    """Return the message about files that are not there, with the folder that has them if near."""
    named = [os.fsdecode(listed.paths[position]) for position in missing[:_MOST_NAMED]]
    shown = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in named]
    line = (
        f"{listed.key}: {len(missing)} of {len(listed)} files of {listed.file.name} are not in "
        f"{folder}: {', '.join(shown)}{', ...' if len(missing) > _MOST_NAMED else ''}"
    )
    if len(named[0]) > _LONGEST:
        return f"{line}; see {listed.place(missing[0])}"
    if named[0].endswith("/"):
        return f"{line}; the path of a file does not end in /"
    if named[0][0] in "\"'" and not listed.has_columns:
        return f"{line}; paths in lines of text take no quotes, even where they hold spaces"
    if "\\" in named[0] and "/" not in named[0]:
        return f"{line}; folders are separated by / in a list"
    with readable(folder, key="data.root"):
        if (other_case := _in_other_capitals(folder, named[0])) is not None:
            return f"{line}; there is {other_case}: capitals and small letters are told apart"
        near = [folder.parent, *sorted(path for path in folder.iterdir() if path.is_dir())]
    for other in near:
        if (other / named[0]).is_file():
            return f"{line}; they are in {other}: set data.root to it"
    return line


def _in_other_capitals(folder: Path, name: str) -> str | None:
    """Return the path of a file that is there but for capitals and small letters."""
    found = folder
    for part in Path(name).parts:
        there = found.iterdir() if found.is_dir() else ()
        alike = [own for own in there if own.name.lower() == part.lower()]
        if not alike:
            return None
        found = alike[0]
    return str(found.relative_to(folder)) if found.is_file() else None


def _are_distinct(hashes: np.ndarray) -> bool:
    in_order = np.sort(hashes)  # findings/numpy-unique-of-distinct-ids-costs-sixty-sorts.sh
    return bool((in_order[1:] != in_order[:-1]).all())


def _hashes(paths: np.ndarray) -> np.ndarray:
    """Return a number for each path, int64 (N,); sorting numbers is much faster than sorting text.

    Python's own hash of 64 bits, good within one process: among a million paths two different ones
    share it with a probability of 3e-8.
    """
    return np.fromiter(map(hash, paths.tolist()), dtype=np.int64, count=len(paths))
