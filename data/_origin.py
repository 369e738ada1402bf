"""Where the files of a published data set are, as they were unpacked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data._base import DataError


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
        given = Path(path).expanduser()
        places = [given.absolute(), *([] if given.is_absolute() else [root / given])]
    for folder in places:
        if all((folder / part).exists() for part in holds):
            return folder
    listed = " and ".join(str(folder) for folder in places)
    raise DataError(
        f"data.path{'' if path is None else f'={path}'}: looked for {' and '.join(holds)} in "
        f"{listed}; unpack {source} there, or set data.path to where they are"
    )
