"""Files that name classes: one name a line, numbered or keyed lines, or JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data._base import DataError
from data._folder import readable

KEY = "data.class_names"
_NUMBERED = re.compile(r"(?P<name>.*\S)\s+(?P<number>\d+)")
_LETTER = re.compile(r"/[a-z]/")  # what Places puts before the name of a scene
_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class ClassNames:
    """What a file says.

    Args:
        file: The file.
        by_number: Names by label of the lists.
        by_folder: Names by the folder that holds the images of the class; empty if the file does
            not begin its lines with folders, as ImageNet's do with wnids.
    """

    file: Path
    by_number: Mapping[int, str]
    by_folder: Mapping[str, str]

    def of(self, numbers: Sequence[int], folders: Sequence[str | None]) -> tuple[str, ...]:
        """Return the names of classes, no two alike.

        Args:
            numbers: Label of each class in the lists.
            folders: Folder that alone holds its images, None where there is none.

        Raises:
            DataError: If the file has no name for a class.
        """
        has_folders = all(folder in self.by_folder for folder in folders)
        names = []
        for number, folder in zip(numbers, folders, strict=True):
            if has_folders and folder is not None:
                names.append(self.by_folder[folder])
            elif number in self.by_number:
                names.append(self.by_number[number])
            else:
                raise DataError(
                    f"{KEY}: {self.file} has no name for label {number}: it has "
                    f"{len(self.by_number)} names, of labels 0 to {max(self.by_number)}, and the "
                    f"lists have {len(numbers)} classes"
                )
        count = Counter(names)
        return tuple(
            name if count[name] == 1 else f"{name} ({number})"
            for name, number in zip(names, numbers, strict=True)
        )


def read_class_names(file: Path) -> ClassNames:
    """Read names of classes.

    Understood are one name a line in the order of the labels; ``name number`` lines, as Places has
    them; ``folder name`` lines, as ImageNet's ``n01440764 tench, Tinca tinca``; and JSON: a list of
    names, of objects with ``name`` and perhaps ``id``, or an object of names by label.

    Raises:
        DataError: If the file cannot be read, or is none of these.
    """
    with readable(file, key=KEY):
        content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        found = _from_json(json.loads(text)) if file.suffix.lower() == ".json" else None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{KEY}: {file} cannot be read as UTF-8 text or JSON ({error})") from error
    if found is None:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        names = ClassNames(file, _by_number(lines), _by_folder(lines))
    else:
        names = ClassNames(file, found, {})
    if not names.by_number or not all(names.by_number.values()):
        raise DataError(
            f"{KEY}: {file} names no classes: expected one name a line, or JSON such as "
            '["cat", "dog"] or [{"id": 0, "name": "cat"}]'
        )
    return names


def _by_number(lines: Sequence[str]) -> dict[int, str]:
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    found = {int(match["number"]): match["name"] for match in numbered if match}
    if len(found) == len(lines) and sorted(found) == list(range(len(lines))):
        return {number: _LETTER.sub("", name, count=1) for number, name in found.items()}
    plain = [_synonym(line) for line in lines]
    return dict(enumerate(plain))


def _by_folder(lines: Sequence[str]) -> dict[str, str]:
    pairs = [line.split(None, 1) for line in lines]
    if not all(len(pair) == 2 for pair in pairs):
        return {}
    return {pair[0]: _synonym(f"{pair[0]} {pair[1]}", is_keyed=True) for pair in pairs}


def _synonym(line: str, *, is_keyed: bool = False) -> str:
    """Return the name in a line that begins with a wnid or folder: the first of its synonyms."""
    key, _, rest = line.partition(" ")
    if _WNID.fullmatch(key) and rest:
        return rest.partition(",")[0].strip()
    return rest.strip() if is_keyed else line


def _from_json(content: Any) -> dict[int, str]:
    """Return names by label; empty where the content is of another kind."""
    if isinstance(content, dict):
        pairs = [(str(key), _json_name(value)) for key, value in content.items()]
        if all(key.isascii() and key.isdecimal() for key, _ in pairs):
            return {int(key): name for key, name in pairs}
        numbers = list(content.values())
        if _are_labels(numbers):  # name to number
            return {number: str(name) for name, number in content.items()}
        return {}
    if not isinstance(content, list):
        return {}
    numbers = [
        entry.get("id", n) if isinstance(entry, dict) else n for n, entry in enumerate(content)
    ]
    if not _are_labels(numbers):
        return {}
    return {number: _json_name(entry) for number, entry in zip(numbers, content, strict=True)}


def _are_labels(numbers: Sequence[Any]) -> bool:
    """Return whether these are whole numbers from 0, no two alike."""
    are_whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers)
    return are_whole and len(set(numbers)) == len(numbers)


def _json_name(value: Any) -> str:
    """Return the name in a value of JSON: itself, its "name", or the last of [wnid, name]."""
    if isinstance(value, dict):
        value = value.get("name")
    elif isinstance(value, list) and value:
        value = value[-1]
    return value.strip() if isinstance(value, str) else ""
