"""Lists of images checked together: one listing of files, as of an image folder."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from data._base import DataError, Refuse
from data._class_names import KEY, read_class_names
from data._columns import unused_notes
from data._folder import Files, Listing, move_test
from data._known_lists import Recognised, recognise
from data._list_file import ListFile
from data._list_labels import ListClasses, list_classes
from data._list_paths import check_apart, folders_of, look_up, relative_paths, without_repeats


class CheckedLists(NamedTuple):
    """Lists after every check.

    Args:
        listing: The files of each split.
        verified: The published data set whose training and test lists these are; empty if none.
    """

    listing: Listing
    verified: str


def check_lists(
    lists: Mapping[str, ListFile],
    folder: Path,
    *,
    class_names: Path | None,
    test_fraction: float | None,
    with_facts: bool,
    refuse: Refuse,
    compare: Callable[[Listing], Mapping[str, np.ndarray] | None] | None = None,
) -> CheckedLists:
    """Check lists, and return their files and classes.

    Args:
        lists: Train, and perhaps val and test, as read.
        folder: What their paths start from.
        class_names: The file that names classes, None without.
        test_fraction: Share of train that is drawn as test, where there is no test list.
        with_facts: Whether size and date of every file are needed.
        refuse: What is done with a sentence about images or groups in two splits, and about missing
            files, which are left out where it returns; a split may then be empty.
        compare: What numbers files by their content, by split, or returns None for too many, before
            test is drawn; copies are then kept together.

    Raises:
        DataError: If anything else is wrong with a path, a label, or between the lists.
    """
    notes, verified = _known(lists)
    kept: dict[str, ListFile] = {}
    for split, listed in lists.items():
        if listed.num_blank:
            notes.append(f"{listed.file.name}: {listed.num_blank} blank lines are left out")
        plain, said = relative_paths(listed, folder)
        kept[split], repeated = without_repeats(plain)
        notes += [*said, *repeated]
    notes += unused_notes({listed.file.name: listed.columns for listed in lists.values()})
    check_apart(kept, refuse=refuse)
    groups = _groups(kept, refuse=refuse)
    classes = list_classes(kept)
    names = _names(classes, kept["train"], class_names)
    splits = {}
    for split, listed in kept.items():
        facts = look_up(listed, folder, with_facts=with_facts, refuse=refuse)
        targets = torch.from_numpy(classes.targets[split])
        own = groups.get(split)
        files = Files(listed.paths, facts.sizes, facts.times, targets, own)
        are_all_there = facts.is_there.all()
        splits[split] = files if are_all_there else files.select(np.flatnonzero(facts.is_there))
    notes += classes.notes
    if test_fraction is not None and len(splits["train"]):  # else no image is there
        contents = None if compare is None else compare(Listing(folder, names, splits))
        if contents is not None:
            splits = {name: replace(own, contents=contents[name]) for name, own in splits.items()}
        notes.append(move_test(splits, test_fraction, may_part_copies=True))
    order = [split for split in ("train", "val", "test") if split in splits]
    listing = Listing(folder, names, {split: splits[split] for split in order}, tuple(notes))
    return CheckedLists(listing, verified)


def _known(lists: Mapping[str, ListFile]) -> tuple[list[str], str]:
    """Say which published lists these are, and return the data set if train and test are its."""
    found = {split: recognise(listed) for split, listed in lists.items()}
    notes = [recognised.sentence for recognised in found.values() if recognised is not None]
    train, test = (_vouched_for(found.get(split), split) for split in ("train", "test"))
    return notes, train if train == test else ""


def _vouched_for(recognised: Recognised | None, split: str) -> str:
    """Return the data set of which a list is this very split, as published; empty if of none."""
    if recognised is None or not recognised.is_verified or recognised.known.split != split:
        return ""
    return recognised.known.data_set


def _names(classes: ListClasses, train: ListFile, file: Path | None) -> tuple[str, ...]:
    """Return the names of the classes: of the file, else the folders, else as in the lists."""
    if classes.numbers is None:
        if file is not None:
            raise DataError(
                f"{KEY}: has no effect, the labels of the lists are names; leave it out"
            )
        return classes.names
    folders = class_folders(train.paths, classes.targets["train"])
    numbers = classes.numbers.tolist()
    if file is not None:
        last = [None if own is None else own.rpartition("/")[2] for own in folders]
        return read_class_names(file).of(numbers, last)
    if None in folders:
        return classes.names
    return tuple(str(own) for own in folders)


def class_folders(paths: np.ndarray, targets: np.ndarray) -> list[str | None]:
    """Return the folder that holds the images of a class and of no other; None where none does.

    What all folders have in common at their beginning, such as ``train/``, is left out.

    Args:
        paths: (N,) bytes.
        targets: (N,) int64, class of each image.
    """
    held = folders_of(paths)
    num_classes = int(targets.max()) + 1
    pairs = np.unique(held.number_of * num_classes + targets)
    folder_of, target_of = pairs // num_classes, pairs % num_classes
    is_own = np.bincount(folder_of)[folder_of] == 1
    is_own &= np.bincount(target_of)[target_of] == 1
    folders: list[bytes | None] = [None] * num_classes
    for folder, target in zip(folder_of[is_own].tolist(), target_of[is_own].tolist(), strict=True):
        folders[target] = held.names[folder]
    common = os.path.commonpath([own for own in folders if own] or [b""])
    start = len(common) + 1 if common else 0
    names = [None if own is None else os.fsdecode(own)[start:] for own in folders]
    return [name or None for name in names]


def _groups(lists: Mapping[str, ListFile], *, refuse: Refuse) -> dict[str, np.ndarray]:
    """Return the numbers of the groups of images, such as those of one patient, of each list.

    A group in two splits is refused.
    """
    written = {name: own.groups for name, own in lists.items() if own.groups is not None}
    if not written:
        return {}
    known = np.unique(np.concatenate(list(written.values())))
    numbers = {split: np.searchsorted(known, groups) for split, groups in written.items()}
    for one, other in itertools.combinations(numbers, 2):
        both = np.intersect1d(numbers[one], numbers[other])
        if len(both):
            refuse(
                f"{lists[other].key}: group {os.fsdecode(known[both[0]])} is in "
                f"{lists[one].file.name}, too; {len(both)} groups are in both splits: images of a "
                "group belong in one"
            )
    return numbers
