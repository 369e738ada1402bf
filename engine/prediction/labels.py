"""Labelled images to evaluate a run on: which files there are, and the class of each by name."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config.homes import expanded
from engine.config.messages import counted
from engine.config.mistakes import ConfigError, nearest
from engine.prediction.image_files import find

COLUMNS = ("file", "class")
NAMED = 5  # classes listed in one line


@dataclass(frozen=True)
class Classes:
    """The classes that a run can answer with.

    Attributes:
        names: C names in label order.
        predicted: labels that a prediction may be.
        has_rest: whether label 0 is every class but the one of label 1.
    """

    names: Sequence[str]
    predicted: Sequence[int]
    has_rest: bool

    @property
    def labels(self) -> dict[str, int]:
        """Return the labels that images may have, by the name of their class."""
        return {self.names[label]: label for label in self.predicted}

    def label_of(self, name: str) -> int | None:
        """Return the label of images of a class, None where the run does not know the class."""
        return self.labels.get(name, 0 if self.has_rest else None)


@dataclass(frozen=True)
class Labelled:
    """Files with their labels.

    Attributes:
        targets: the label of each file, in the order named.
        remarks: sentences on classes without images, and on what was left out.
    """

    targets: dict[Path, int]
    remarks: tuple[str, ...]


def labelled(paths: Iterable[Path], classes: Classes) -> Labelled:
    """Return the images below ``paths`` whose class the run knows.

    Args:
        paths: folders of class folders, or CSV files with the columns ``file`` and ``class``.
        classes: of the run.

    Raises:
        ConfigError: there is no image of any of its classes, or a file has two of them.
    """
    found: dict[str, list[Path]] = {}
    loose = 0
    for path in paths:
        if path.is_dir():
            inside = _class_folders(path)
            _check_some_are_known(path, inside, classes)
            loose += sum(not p.name.startswith(".") and p.is_file() for p in path.iterdir())
            listed = {folder.name: find([folder]) for folder in inside}
            loose += sum(own.num_others for own in listed.values())
            pairs = [(name, file) for name, own in listed.items() for file in own.files]
        else:
            pairs = list(_listed(path))
        for name, file in pairs:
            found.setdefault(name, []).append(file)
    targets: dict[Path, int] = {}
    for name, files in found.items():
        if (label := classes.label_of(name)) is None:
            continue
        for file in files:
            if targets.setdefault(file, label) != label:
                raise ConfigError([f"{file}: is listed with two classes; keep one of them"])
    if not targets:
        raise ConfigError([_nothing(found, classes)])
    return Labelled(targets, tuple(_remarks(found, targets, classes, loose=loose)))


def _class_folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _check_some_are_known(folder: Path, inside: Sequence[Path], classes: Classes) -> None:
    names = [path.name for path in inside]
    if any(name in classes.labels for name in names):
        return
    here = f"it has {_some(names)}" if names else "it has no folders"
    known = f"a class of the run ({_some(list(classes.labels))})"
    deeper = next(
        (p for p in inside if any(q.name in classes.labels for q in _class_folders(p))), None
    )
    hint = f"; name {deeper}" if deeper else "".join(nearest(n, classes.labels) for n in names[:1])
    raise ConfigError([f"{folder}: no folder in it is called like {known}; {here}{hint}"])


def _listed(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield class and file of each line; a relative path starts from the folder of the list."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError([f"{path}: cannot be read as CSV ({error})"]) from error
    if missing := [name for name in COLUMNS if not rows or name not in rows[0]]:
        has = f"; its first line has {_some(list(map(str, rows[0])))}" if rows else ""
        raise ConfigError([f"{path}: expected the columns file and class: no {missing[0]}{has}"])
    for number, row in enumerate(rows, start=2):
        if not row["file"] or not row["class"]:
            raise ConfigError([f"{path}:{number}: names no file or no class"])
        yield row["class"], path.parent / expanded(row["file"])


def _nothing(found: dict[str, list[Path]], classes: Classes) -> str:
    known = f"no image of a class of the run ({_some(list(classes.labels))})"
    return f"nothing to evaluate: {known}; there are {_some(list(found))}"


def _remarks(
    found: dict[str, list[Path]], targets: dict[Path, int], classes: Classes, *, loose: int
) -> Iterator[str]:
    there = set(targets.values())
    if absent := [name for name, label in classes.labels.items() if label not in there]:
        yield (
            f"no images of {counted(len(absent), 'class', 'classes')} of the run: {_some(absent)}; "
            "means over classes leave them out"
        )
    unknown = {name: files for name, files in found.items() if classes.label_of(name) is None}
    if unknown:
        names = [f"{name}{nearest(name, classes.labels)}" for name in unknown]
        num = counted(sum(map(len, unknown.values())), "image")
        yield f"left out: {num} of what is no class of the run: {_some(names)}"
    if loose:
        yield f"left out: {counted(loose, 'file')} in no class folder, or no image by its name"
    if classes.has_rest:
        rest = [name for name in found if classes.label_of(name) == 0]
        yield f"counted as {classes.names[0]}: {_some(rest)}"


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest
