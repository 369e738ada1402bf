"""Where run folders are: what is searched for them, and which of them count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.config.homes import expanded
from engine.config.mistakes import ConfigError


def run_folders(places: Iterable[str | Path]) -> list[Path]:
    """Return the run folders below folders or patterns, sorted; what lies inside one is none."""
    found = set[Path]()
    for place in places:
        # Below a folder everything is searched anyway.
        path = Path(str(expanded(place)).removesuffix("/**"))
        base = Path(path.anchor)
        matches = [path] if path.exists() else base.glob(str(path.relative_to(base)))
        for match in matches:
            found |= set(_run_folders_below(match))
    return sorted(folder for folder in found if not found & set(folder.parents))


def refuse_set_aside(folder: Path) -> None:
    """Refuse the folder of a run that was begun again.

    Raises:
        ConfigError: ``--fresh`` has set it aside.
    """
    if ".old-" in folder.name:
        raise ConfigError([f"{folder}: was set aside by --fresh"])


def _run_folders_below(path: Path) -> Iterator[Path]:
    if (path / "config.yaml").is_file():
        yield path
    elif path.is_dir():
        for child in path.iterdir():
            if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
                yield from _run_folders_below(child)
