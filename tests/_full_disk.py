"""A disk without room for one file."""

from __future__ import annotations

from pathlib import Path


def full_at(file: Path, *, unfinished: str = ".{}.tmp") -> None:
    """Let the file be written to a device that is always full, before it gets its name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_name(unfinished.format(file.name)).symlink_to("/dev/full")
