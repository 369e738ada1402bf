"""The columns of a table or JSON list: which are path, label and group, and which are not read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_MOST_NAMED = 8  # columns named in one message
# What a column is called where data.columns does not say, in the order they are looked for.
_USUAL = (
    ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "image_filepath"),
    ("label", "class", "target", "category", "class_id", "category_id", "anomaly_class"),
)
# What a column of groups is often called, before any "id", "number" or "name" at its end.
_USUAL_GROUP = re.compile(
    "animal|burst|camera|case|group|individual|location|patient|person|plate|plot|sequence|"
    "series|session|site|slide|smear|specimen|speaker|study|subject|track|video|wafer"
)


class ListMistake(Exception):  # noqa: N818 - becomes a DataError that names key and file
    """What is wrong with a list: the message goes on after the name of the file."""


class Columns(NamedTuple):
    """Names of the columns of a list; none where it has no names.

    Args:
        used: Path, label and perhaps group.
        unused: All others, as far as they have a name.
    """

    used: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    @classmethod
    def of(cls, header: Sequence[str], chosen: Sequence[int]) -> Columns:
        """Return the names of a header, by the places of those that are read."""
        left = (name for place, name in enumerate(header) if place not in chosen and name.strip())
        return cls(tuple(header[place] for place in chosen), tuple(left))


def choose_columns(
    header: Sequence[str], columns: Sequence[str] | None, *, what: str = "It has"
) -> list[int]:
    """Return which columns are path, label and group: those named, else those of usual names.

    Args:
        header: Names of all columns.
        columns: As ``data.columns`` names them, or None.
        what: How a message begins that names those there are.

    Raises:
        ListMistake: If a column is not there.
    """
    have = _named(header) or "none"
    if columns is not None:
        unknown = [name for name in columns if name not in header]
        if unknown:
            raise ListMistake(f" has no column {unknown[0]!r} (data.columns); it has {have}")
        return [header.index(name) for name in columns]
    lower = [name.lower() for name in header]
    found = [next((lower.index(u) for u in usual if u in lower), None) for usual in _USUAL]
    if None in found:
        raise ListMistake(
            f": which columns hold path and label? {what} {have}; name them in data.columns, as "
            "in data.columns=[file, class]"
        )
    return [index for index in found if index is not None]


def unused_notes(lists: Mapping[str, Columns]) -> list[str]:
    """Name the columns that nothing reads, and say how to make groups of one that may hold them.

    Args:
        lists: The columns of each list, by the name of its file.

    >>> unused_notes({"a.csv": Columns(("file", "label"), ("age", "patient_id"))})
    ['a.csv: columns age, patient_id are not used; data.columns=[file,label,patient_id] makes \
patient_id the group, which is kept in one split']
    """
    files: dict[str, list[str]] = {}
    for file, columns in lists.items():
        if columns.unused:
            files.setdefault(_unused(columns), []).append(file)
    return [f"{', '.join(own)}: {sentence}" for sentence, own in files.items()]


def _unused(columns: Columns) -> str:
    num = len(columns.unused)
    nouns = "column {} is" if num == 1 else "columns {} are"
    sentence = f"{nouns.format(_named(columns.unused))} not used"
    groups = [name for name in columns.unused if _is_group(name)]
    if not groups or len(columns.used) > 2:
        return sentence
    written = ",".join(_as_yaml(name) for name in (*columns.used, groups[0]))
    made = "it" if num == 1 else _printable(groups[0])
    return (
        f"{sentence}; data.columns=[{written}] makes {made} the group, which is kept in one split"
    )


def _is_group(name: str) -> bool:
    """Return whether a column is called like groups: patient, Patient ID, patient_no, patientId."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z]+", " ", name).lower().split()
    if len(words) > 1 and words[-1] in ("id", "name", "no", "number"):
        words.pop()
    return _USUAL_GROUP.fullmatch("".join(words).removesuffix("id")) is not None


def _as_yaml(name: str) -> str:
    name = _printable(name)
    return name if re.fullmatch(r"[A-Za-z_][\w.-]*", name) else json.dumps(name, ensure_ascii=False)


def _named(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _MOST_NAMED else ""
    return ", ".join(_printable(name) for name in names[:_MOST_NAMED]) + more


def _printable(name: str) -> str:
    """Return a name as text of one line: a table may hold other bytes, line ends and controls."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in name
    )
