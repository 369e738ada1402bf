"""One list of images, read from text, CSV or JSON into arrays: paths, labels, groups."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from data._base import DataError
from data._columns import Columns, ListMistake, choose_columns
from data._folder import readable

_CHUNK = 100_000  # lines held as Python objects at a time


@dataclass(frozen=True, eq=False)
class ListFile:
    """The images of one list, in its order.

    Args:
        key: The config key that names the list, for messages.
        file: The list.
        paths: (N,) bytes, as written.
        labels: (N,) bytes, as written: numbers or names.
        places: (N,) int64, number of the line; in JSON, of the entry.
        groups: (N,) bytes, None without a column of groups.
        num_blank: Blank lines, which are left out.
        has_columns: Whether it is a table or JSON, whose columns have names.
        columns: What these are, as far as it is one.
    """

    key: str
    file: Path
    paths: np.ndarray
    labels: np.ndarray
    places: np.ndarray
    groups: np.ndarray | None
    num_blank: int
    has_columns: bool
    columns: Columns

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, index: np.ndarray) -> ListFile:
        """Return the list of the images at ``index`` (M,) alone."""
        return replace(
            self,
            paths=self.paths[index],
            labels=self.labels[index],
            places=self.places[index],
            groups=None if self.groups is None else self.groups[index],
        )

    def place(self, position: int) -> str:
        """Return where an image stands, for messages: ``train.txt, line 7``."""
        unit = "entry" if self.file.suffix.lower() == ".json" else "line"
        return f"{self.file.name}, {unit} {self.places[position]}"


class _Row(NamedTuple):
    """A row of a table that is not blank: its number, and path, label and perhaps group."""

    place: int
    fields: Sequence[bytes]


class _Table(NamedTuple):
    """The columns of a table or JSON, and its rows; None for a blank one."""

    columns: Columns
    rows: Iterator[_Row | None]


def read_list(file: Path, *, key: str, columns: Sequence[str] | None) -> ListFile:
    """Read a list: ``path label`` lines, a table (.csv, .tsv) or JSON, by the end of its name.

    Args:
        file: The list.
        key: The config key that names it.
        columns: Columns of a table, or keys of a JSON entry: path, label and perhaps group; by
            default the usual names are looked for.

    Raises:
        DataError: If it cannot be read, is empty, or a line has no path or no label.
    """
    with readable(file, key=key):
        content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if b"\0" in content:
        raise DataError(f"{key}: {file} is not a list in UTF-8 text")
    kinds = {".csv": _read_table, ".tsv": _read_table, ".json": _read_json}
    read = kinds.get(file.suffix.lower())
    names = Columns()
    try:
        if read is None:
            content = content.replace(b"\r\n", b"\n")
            parts = list(_plain_parts(content) or _text_parts(content))
        else:
            names, rows = read(content, columns)
            parts = list(_in_parts(rows))
        paths, labels, groups, places, num_blank = _joined(parts)
        if np.char.isdigit(paths).all() and not np.char.isdigit(labels).any():
            raise ListMistake(": every path is a number and no label is: expected the path first")
    except ListMistake as mistake:
        raise DataError(f"{key}: {file}{mistake}") from mistake
    return ListFile(
        key=key,
        file=file,
        paths=paths,
        labels=labels,
        places=places,
        groups=groups,
        num_blank=num_blank,
        has_columns=read is not None,
        columns=names,
    )


class _Part(NamedTuple):
    """Some lines of a list as arrays: path, label and perhaps group, and what was left out."""

    columns: Sequence[np.ndarray]
    places: np.ndarray
    num_blank: int


class _Arrays(NamedTuple):
    paths: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None
    places: np.ndarray
    num_blank: int


def _joined(parts: Sequence[_Part]) -> _Arrays:
    filled = [part for part in parts if len(part.places)]
    if not filled:
        raise ListMistake(" has no image")
    columns = zip(*(part.columns for part in filled), strict=True)
    paths, labels, *groups = (np.concatenate(column) for column in columns)
    places = np.concatenate([part.places for part in filled])
    num_blank = sum(part.num_blank for part in parts)
    return _Arrays(paths, labels, groups[0] if groups else None, places, num_blank)


def _in_parts(rows: Iterator[_Row | None]) -> Iterator[_Part]:
    """Gather rows in arrays, some at a time: a million tuples would fill the memory."""
    while chunk := list(islice(rows, _CHUNK)):
        kept = [row for row in chunk if row is not None]
        columns = zip(*(row.fields for row in kept), strict=True)
        places = np.array([row.place for row in kept], dtype=np.int64)
        yield _Part([np.array(column) for column in columns], places, len(chunk) - len(kept))


def _plain_parts(content: bytes) -> Iterator[_Part] | None:
    """Read a list whose every line is a path, one space and a label; None for any other.

    The bytes themselves show it; to look at a million lines one by one takes several times longer.
    """
    if not content.endswith(b"\n"):
        content += b"\n"
    if any(space in content for space in (b"\t", b"\r", b"\v", b"\f")):
        return None
    letters = np.frombuffer(content, dtype=np.uint8)
    spaces, ends = (np.flatnonzero(letters == ord(one)) for one in (" ", "\n"))
    if len(spaces) != len(ends):
        return None
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (spaces <= starts).any() or (spaces >= ends - 1).any():
        return None  # a blank line, a space in a path, or no label
    return _plain_chunks(content, starts, ends)


def _plain_chunks(content: bytes, starts: np.ndarray, ends: np.ndarray) -> Iterator[_Part]:
    for first in range(0, len(starts), _CHUNK):
        last = min(first + _CHUNK, len(starts))
        words = content[starts[first] : ends[last - 1]].split()
        columns = [np.array(words[which::2], dtype=bytes) for which in (0, 1)]
        yield _Part(columns, np.arange(first, last) + 1, 0)


def _text_parts(content: bytes) -> Iterator[_Part]:
    """Read ``path label`` lines; a path may hold spaces, a label not."""
    lines = content.splitlines()
    for start in range(0, len(lines), _CHUNK):
        fields = [_fields(line) for line in lines[start : start + _CHUNK]]
        paths, labels = [pair[0] for pair in fields], [pair[1] for pair in fields]
        if b"" in labels:
            places = np.flatnonzero(list(map(bool, labels)))
            for place, path in enumerate(paths):
                if path and not labels[place]:
                    raise ListMistake(
                        f", line {start + place + 1}: {_shown(path)} has no label after the path; "
                        "expected `path label` on every line (a table with named columns ends in "
                        ".csv)"
                    )
            paths, labels = [p for p in paths if p], [label for label in labels if label]
        else:
            places = np.arange(len(fields))
        columns = [np.array(paths, dtype=bytes), np.array(labels, dtype=bytes)]
        yield _Part(columns, start + 1 + places, len(fields) - len(places))


def _fields(line: bytes) -> tuple[bytes, bytes]:
    """Return path and label of a line; no label where it has one word, neither where it has none.

    What splits at any white space takes several times longer than the usual case.
    """
    path, _, label = line.rpartition(b" ")
    path = path.strip()
    if path and label and b"\t" not in line:
        return path, label
    words = line.rsplit(None, 1)
    return (words[0].strip(), words[1]) if len(words) == 2 else (b"".join(words), b"")


class _Reader(Protocol):
    """What :func:`csv.reader` returns."""

    @property
    def line_num(self) -> int: ...
    def __iter__(self) -> Iterator[list[str]]: ...


def _read_table(content: bytes, columns: Sequence[str] | None) -> _Table:
    """Read a table whose first line names the columns."""
    lines = io.StringIO(content.decode("utf-8", "surrogateescape"), newline="")
    first = lines.readline()
    lines.seek(0)
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    with _malformed_lines(reader):
        header = [name.strip() for name in next(reader, [])]
    chosen = choose_columns(header, columns, what="Its first line, which names them, has")
    return _Table(Columns.of(header, chosen), _table_rows(reader, chosen, num_columns=len(header)))


def _table_rows(
    reader: _Reader, chosen: Sequence[int], *, num_columns: int
) -> Iterator[_Row | None]:
    with _malformed_lines(reader):
        for row in reader:
            if not any(row):
                yield None
                continue
            if len(row) != num_columns:
                raise ListMistake(
                    f", line {reader.line_num}: has {len(row)} values for {num_columns} columns"
                )
            values = [row[index].strip() for index in chosen]
            yield _Row(reader.line_num, _encoded(values, f", line {reader.line_num}"))


@contextmanager
def _malformed_lines(reader: _Reader) -> Iterator[None]:
    try:
        yield
    except csv.Error as error:
        raise ListMistake(f", line {reader.line_num}: {error}") from error


def _read_json(content: bytes, columns: Sequence[str] | None) -> _Table:
    """Read a list of objects, an object of objects, or {path: label}."""
    try:
        found = json.loads(content, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise ListMistake(f" is not JSON ({error})") from error
    entries = list(found.values()) if isinstance(found, dict) else found
    if isinstance(found, dict) and found and not any(isinstance(e, dict | list) for e in entries):
        if columns is not None:
            raise ListMistake(
                " is {path: label}, where data.columns has no effect: leave it out, or write an "
                "object {path: ..., label: ...} for each image"
            )
        return _Table(Columns(), _json_rows([path, _text(label)] for path, label in found.items()))
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise ListMistake(
            ": expected {image: {path: ..., label: ...}}, a list of such objects, or {path: label}"
        )
    if not entries:
        return _Table(Columns(), iter(()))
    names = list(entries[0])
    used, unused = Columns.of(names, choose_columns(names, columns))
    rows = ([_text(entry.get(name)) for name in used] for entry in entries)
    return _Table(Columns(used, unused), _json_rows(rows))


def _json_rows(entries: Iterable[Sequence[str]]) -> Iterator[_Row]:
    """Yield path, label and perhaps group of each entry."""
    for number, entry in enumerate(entries, start=1):
        yield _Row(number, _encoded(entry, f", entry {number}"))


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ListMistake(f" has the key {twice!r} twice")
    return found


def _text(value: Any) -> str:
    """Return a label or path of JSON as text; empty for what can be none."""
    is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return str(value).strip() if is_plain else ""


def _encoded(values: Sequence[str], place: str) -> tuple[bytes, ...]:
    """Return path, label and group as bytes, none of them empty."""
    for value, what in zip(values, ("path", "label", "group"), strict=False):
        if not value:
            raise ListMistake(f"{place}: has no {what}")
    try:
        return tuple(value.encode("utf-8", "surrogateescape") for value in values)
    except UnicodeEncodeError as error:  # JSON can write half of a surrogate pair
        raise ListMistake(f"{place}: {error.object!a} is no UTF-8 text") from error


def _shown(text: bytes) -> str:
    """Return bytes of a list as messages show them."""
    shown = repr(text.decode("utf-8", "backslashreplace"))
    return shown if len(shown) <= 80 else f"{shown[:76]}...'"
