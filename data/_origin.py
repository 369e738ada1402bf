"""Where the files of a published data set are, as they were unpacked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data._base import DataError, expanded
from data._folder import readable


def find_unpacked(
    root: Path, path: str | None, *, names: Sequence[str], holds: Sequence[str], source: str
) -> Path:
    """Return the folder of a data set: ``path`` if given, else the first of ``names`` below root.

    Args:
        root: The data root; a relative path is looked for here and then below it.
        path: ``data.path``.
        names: Folders below the data root that it may be.
        holds: Files and folders that must be in it.
        source: Where the data come from, for the message.

    Raises:
        DataError: If no such folder holds what it must.
    """
    places = [root / name for name in names]
    if path is not None:
        given = expanded(path, key="data.path")
        places = [given.absolute(), *([] if given.is_absolute() else [root / given])]
    for folder in places:
        if all((folder / part).exists() for part in holds):
            return folder
    key = f"data.path{'' if path is None else f'={path}'}"
    for folder in places:
        if there := [part for part in holds if (folder / part).exists()]:
            missing = " and ".join(part for part in holds if part not in there)
            raise DataError(
                f"{key}: {folder} has {' and '.join(there)}, but no {missing}; unpack {source} anew"
            )
    listed = " and ".join(str(folder) for folder in places)
    looked = f"{key}: looked for {' and '.join(holds)} in {listed}"
    for folder in _nearby(places, holds):
        raise DataError(f"{looked}; they are in {folder}: set data.path to it")
    raise DataError(f"{looked}; unpack {source} there, or set data.path to where they are")


def _nearby(places: Sequence[Path], holds: Sequence[str]) -> Iterator[Path]:
    """Yield the folders one level above or below that hold what is looked for."""
    for place in places:
        below = []
        if place.is_dir():
            with readable(place):
                below = sorted(place.iterdir())
        for folder in (place.parent, *below):
            if all((folder / part).exists() for part in holds):
                yield folder
