"""Which images of a folder belong together: by the folder they are in, or by their names."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping

import numpy as np

from data._base import DataError

BY_FOLDER = "folder"


def number_groups(groups: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the number of each image's group, by split, in the order of their names.

    Args:
        groups: Name of the group of each image, by split.
    """
    _, numbers = np.unique(np.concatenate(list(groups.values())), return_inverse=True)
    ends = np.cumsum([len(own) for own in groups.values()])[:-1]
    return dict(zip(groups, np.split(numbers, ends), strict=True))


def shared_groups(groups: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Return one sentence for each pair of splits that have a group in common.

    Args:
        groups: Name of the group of each image, by split.
    """
    found = []
    for (first, a), (second, b) in itertools.combinations(groups.items(), 2):
        if len(both := np.intersect1d(a, b)):
            found.append(
                f"groups of {second} that are in {first}, too: {len(both)} of "
                f"{len(np.unique(b))} ({both[0]})"
            )
    return tuple(found)


def check_group_by(group_by: str) -> None:
    """Refuse what is neither ``folder`` nor a regular expression.

    Raises:
        DataError: If it is not.
    """
    if group_by != BY_FOLDER:
        _compiled(group_by)


def _compiled(group_by: str) -> re.Pattern[str]:
    try:
        return re.compile(group_by)
    except re.error as error:
        raise DataError(
            f"data.group_by={group_by}: is neither folder nor a regular expression ({error})"
        ) from error


def group_names(names: np.ndarray, group_by: str) -> np.ndarray:
    """Return the group of each file by name, (N,) str.

    Args:
        names: Paths (N,) in bytes, the last folder being that of the class or, with ``folder``,
            that of the group.
        group_by: ``folder``, else a regular expression that is searched in the name of the file;
            its first bracket, or without brackets all that it matches, names the group.

    Raises:
        DataError: If that is no regular expression, or a file does not match it.
    """
    paths = [os.fsdecode(name) for name in names]
    if group_by == BY_FOLDER:
        return np.array([path.split("/")[-2] for path in paths])
    pattern = _compiled(group_by)
    groups = []
    for path in paths:
        match = pattern.search(path.rpartition("/")[2])
        group = match[min(1, pattern.groups)] if match else None
        if not group:
            raise DataError(
                f"data.group_by={group_by}: finds no group in the name of {path}; every file needs "
                "one"
            )
        groups.append(group)
    return np.array(groups)
