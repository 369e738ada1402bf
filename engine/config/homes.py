"""Paths of a config that begin with ``~``: the user whose home folder it is must be there."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

from engine.config.schema import Config

# Those of a data set are its own.
PATHS = ("track.root", "teacher", "model.init_from", "model.pretrained", "model.text_encoder")


def unknown_homes(config: Config) -> Iterator[str]:
    """Yield a line for each key that names a path in the home folder of nobody."""
    for key in PATHS:
        value = attrgetter(key)(config)
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, str) and not has_home(path):
                yield f"{key}={path}: {Path(path).parts[0]} has no home folder; write it in full"


def has_home(path: str) -> bool:
    """Return whether ``~`` or ``~user`` at the beginning of a path can be replaced."""
    return not path.startswith("~") or expanded(path) != Path(path)


def expanded(path: str | Path) -> Path:
    """Return a path whose ``~`` or ``~user`` is replaced, if there is one; else as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
