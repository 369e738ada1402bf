"""The labels of lists: numbers or names, and the classes that they make."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from data._base import DataError
from data._list_file import ListFile

_MOST_NAMED = 5  # numbers in one message
_WITH_FRACTION = re.compile(rb"\d+(\.\d*)?([eE][+-]?\d+)?")
LONGEST = 9  # digits of a label


class ListClasses(NamedTuple):
    """The classes of lists.

    Args:
        targets: Of each list, (N,) int64.
        numbers: (C,) int64, what the lists call each class; None where they have names.
        names: Names of the classes in the lists, or their numbers.
        notes: What to say.
    """

    targets: dict[str, np.ndarray]
    numbers: np.ndarray | None
    names: tuple[str, ...]
    notes: tuple[str, ...]


def list_classes(lists: Mapping[str, ListFile]) -> ListClasses:
    """Return the classes that the training list has; the other lists may have no other.

    Labels are numbers where most are: they keep their order, and numbers without a training image
    are closed up. Else they are names, in alphabetical order.

    Raises:
        DataError: If a label among numbers is none, or a class has no training image.
    """
    is_number = {split: np.char.isdigit(listed.labels) for split, listed in lists.items()}
    num_numbers = sum(int(mask.sum()) for mask in is_number.values())
    are_numbers = 2 * num_numbers > sum(len(mask) for mask in is_number.values())
    if are_numbers:
        for split, listed in lists.items():
            _check_numbers(listed, is_number[split])
    values = {
        split: listed.labels.astype(np.int64) if are_numbers else listed.labels
        for split, listed in lists.items()
    }
    known = np.unique(values["train"])
    if not are_numbers:
        _check_names(lists["train"], known)
    targets = {}
    for split, listed in lists.items():
        targets[split] = np.searchsorted(known, values[split]).clip(max=len(known) - 1)
        unknown = np.flatnonzero(known[targets[split]] != values[split])
        if len(unknown):
            raise DataError(_unknown(listed, int(unknown[0]), lists["train"]))
    if not are_numbers:
        return ListClasses(targets, None, tuple(_name(own, lists["train"]) for own in known), ())
    names = tuple(str(number) for number in known.tolist())
    return ListClasses(targets, known, names, _gaps(known, lists["train"]))


def _check_numbers(listed: ListFile, is_number: np.ndarray) -> None:
    for position in np.flatnonzero(~is_number)[:1].tolist():
        raise DataError(
            f"{listed.key}: {listed.place(position)}: the label "
            f"{os.fsdecode(listed.labels[position])!r} is no number from 0, as the others are"
        )
    longest = np.char.str_len(listed.labels) > LONGEST
    for position in np.flatnonzero(longest)[:1].tolist():
        raise DataError(
            f"{listed.key}: {listed.place(position)}: the label "
            f"{os.fsdecode(listed.labels[position])} has more than {LONGEST} digits"
        )


def _check_names(listed: ListFile, names: np.ndarray) -> None:
    """Refuse 0.0, 1.0, 10.0 as names: their alphabetical order is not that of the numbers."""
    if all(_WITH_FRACTION.fullmatch(name) for name in names.tolist()):
        label = os.fsdecode(listed.labels[0])
        raise DataError(
            f"{listed.key}: {listed.place(0)}: the label {label!r} is written with a fraction, as "
            "pandas does where a column has gaps: expected whole numbers from 0, or names"
        )


def _unknown(listed: ListFile, position: int, train: ListFile) -> str:
    label = os.fsdecode(listed.labels[position])
    return (
        f"{listed.key}: {listed.place(position)}: class {label} is not in {train.file.name}: every "
        "class needs training images"
    )


def _name(label: bytes, train: ListFile) -> str:
    try:
        return label.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{train.key}: the label {label!r} is no UTF-8") from error


def _gaps(numbers: np.ndarray, train: ListFile) -> tuple[str, ...]:
    """Say that labels are not 0 to C - 1, and what they became."""
    highest = int(numbers[-1])
    lacking = np.setdiff1d(np.arange(highest + 1), numbers) if highest < 10**7 else numbers[:0]
    if len(numbers) == highest + 1:
        return ()
    named = ", ".join(map(str, lacking[:_MOST_NAMED].tolist()))
    which = f" ({named}{', ...' if len(lacking) > _MOST_NAMED else ''})" if named else ""
    return (
        f"{train.file.name}: {highest + 1 - len(numbers)} of the labels 0 to {highest} have no "
        f"training image{which}: the {len(numbers)} classes are numbered 0 to {len(numbers) - 1} "
        "here, without gaps",
    )
