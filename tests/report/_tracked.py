"""A tracked run without training: what the tests of single trackers start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.config.load import load
from engine.report.tracking import TrackedRun, Trackers, start


def tracked_run(folder: Path, **values: Any) -> TrackedRun:
    """A run called ``name`` in ``folder``."""
    fields = {
        "folder": folder,
        "root": folder,
        "run_id": "0123456789ab-abcdef",
        "name": "name",
        "group": "group",
        "config": {"seed": 0, "data": {"name": "digits"}},
    }
    return TrackedRun(**{**fields, **values})


def started(
    folder: Path, *words: str, say: Callable[[str], object] = print, **values: Any
) -> Trackers:
    """The trackers of such a run; ``words`` are config words such as ``track.wandb=online``."""
    track = load(overrides=words).track
    return start(track, tracked_run(folder, **values), say=lambda line: void(say(line)))


def void(_: object) -> None:
    """Nothing: a listener's return value does not count."""
