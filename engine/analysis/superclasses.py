"""Classes that belong together, by a file: how many mistakes stay within such a group."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.analysis.blocks import Integers, Mask
from engine.config.mistakes import ConfigError, nearest

COLUMNS = ("class", "superclass")
SHOWN = 5  # columns that a mistake names


@dataclass(frozen=True, eq=False)
class Superclasses:
    """Which superclass each class belongs to.

    Attributes:
        names: S names, in the order of the file.
        of: (C,) number of each class's superclass.
    """

    names: tuple[str, ...]
    of: Integers


class Within(NamedTuple):
    """Where the images of some classes go; the three shares sum to one.

    Attributes:
        right: share that is right.
        inside: share that is taken for another class of the same superclass.
        outside: share that leaves the superclass.
    """

    right: float
    inside: float
    outside: float


def read_superclasses(file: Path, class_names: Sequence[str]) -> Superclasses:
    """Read a CSV file with the columns class and superclass, a line for every class.

    Raises:
        ConfigError: it cannot be read, names a class twice or one that the run does not have, or
            leaves one out.
    """
    given = _read(file)
    mistakes = list(_mistakes(given, file, class_names))
    if mistakes:
        raise ConfigError(mistakes)
    names = tuple(dict.fromkeys(given.values()))
    return Superclasses(names, np.array([names.index(given[name]) for name in class_names]))


def _read(file: Path) -> Mapping[str, str]:
    try:
        with file.expanduser().open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, skipinitialspace=True)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                given = list(reader.fieldnames or ())
                have = ", ".join(given[:SHOWN]) + (" ..." if len(given) > SHOWN else "")
                have = have or "nothing"
                raise ConfigError([f"{file}: needs the columns class and superclass; has {have}"])
            found: dict[str, str] = {}
            for row in reader:
                name, superclass = ((row[column] or "").strip() for column in COLUMNS)
                if not name or not superclass:
                    raise ConfigError([f"{file}: line {reader.line_num} is not whole"])
                if found.get(name, superclass) != superclass:
                    raise ConfigError([f"{file}: {name} is in {found[name]} and in {superclass}"])
                found[name] = superclass
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError([f"{file}: cannot be read as a CSV file: {error}"]) from error
    return found


def _mistakes(given: Mapping[str, str], file: Path, class_names: Sequence[str]) -> Iterator[str]:
    unknown = [name for name in given if name not in class_names]
    missing = [name for name in class_names if name not in given]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        hint = nearest(unknown[0], class_names)
        yield f"{file}: {unknown[0]}{more}: no class of the run{hint}"
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        yield f"{file}: {missing[0]}{more} of the run's classes: has no line"
    if not unknown and not missing and len(set(given.values())) < 2:
        yield f"{file}: all classes are in one superclass; expected two or more"


def superclass_counts(counts: npt.NDArray[np.int64], superclass: Integers) -> npt.NDArray[np.int64]:
    """Return (S, S) numbers of images, rows = true superclass, of (C, C) numbers by class.

    >>> superclass_counts(np.array([[5, 1, 2], [0, 6, 0], [1, 0, 7]]), np.array([0, 0, 1])).tolist()
    [[12, 2], [1, 7]]
    """
    num = int(superclass.max()) + 1
    found = np.zeros((num, num), dtype=np.int64)
    np.add.at(found, (superclass[:, None], superclass[None, :]), counts)
    return found


def within(counts: npt.NDArray[np.int64], superclass: Integers, *, classes: Mask) -> Within | None:
    """Return where the images of some classes go; None where they have none.

    Args:
        counts: (C, C) numbers of images, rows = true class.
        superclass: (C,) number of each class's superclass.
        classes: (C,) mask.
    """
    own = counts[classes]
    total = int(own.sum())
    if total == 0:
        return None
    is_same = superclass[classes][:, None] == superclass[None, :]
    right = int(counts.diagonal()[classes].sum())
    stayed = int(own[is_same].sum())
    return Within(right / total, (stayed - right) / total, (total - stayed) / total)
