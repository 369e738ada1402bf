"""The files of a data set: formats, sizes, pixel modes, and those that cannot be read."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data


@dataclass(frozen=True)
class FileFacts:
    """What the image files of a data set are.

    Attributes:
        num: number of files.
        num_bytes: all together.
        kinds: files by format and pixel mode, ``JPEG L``, the most frequent first.
        sizes: files by width and height, the most frequent first.
        broken: the files that cannot be decoded, and what is wrong with each, in one line that
            names it.
    """

    num: int
    num_bytes: int
    kinds: tuple[tuple[str, int], ...]
    sizes: tuple[tuple[tuple[int, int], int], ...]
    broken: dict[Path, str]


def look_at(paths: Sequence[Path], *, options: Mapping[str, Any]) -> FileFacts:
    """Open and decode every file, in threads; show the progress if there are many.

    Args:
        paths: of the files.
        options: of :func:`data.file_fact`.
    """
    fact_of = functools.partial(data.file_fact, **options)
    with data.quiet_pillow():
        found = list(data.of_files(fact_of, paths, total=len(paths), doing="looking at files"))
    whole = [fact for fact in found if not isinstance(fact, str)]
    return FileFacts(
        num=len(paths),
        num_bytes=sum(fact.num_bytes for fact in whole),
        kinds=tuple(Counter(f"{fact.format} {fact.mode}" for fact in whole).most_common()),
        sizes=tuple(Counter((fact.width, fact.height) for fact in whole).most_common()),
        broken={
            path: fact for path, fact in zip(paths, found, strict=True) if isinstance(fact, str)
        },
    )
