"""Trackers: where a run can be watched and compared, each one file of this folder.

``track.to`` lists them by file name. metrics.jsonl is the truth: whatever goes wrong in a tracker
is said once, switches it off, and never reaches the training loop. To add one, write a file with a
subclass of :class:`Tracker`.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.config import components
from engine.config.mistakes import ConfigError
from engine.config.schema import TRACKERS, TrackConfig, tracker_field
from engine.report.tracking._base import Closing, Confusion, TrackedRun, Tracker
from engine.report.tracking._guard import Guarded, Trackers
from engine.report.tracking._values import (
    PerClassMode,
    class_labels,
    closing_of,
    closing_values,
    logged_again,
    run_name,
    values_of,
)

__all__ = [
    "Closing",
    "Confusion",
    "PerClassMode",
    "TrackedRun",
    "Tracker",
    "Trackers",
    "check_installed",
    "class_labels",
    "closing_of",
    "closing_values",
    "logged_again",
    "run_name",
    "start",
    "values_of",
]


def check_installed(names: Sequence[str]) -> None:
    """Refuse a tracker whose optional package is not installed.

    Raises:
        ConfigError: One line a tracker, with the command that installs the package.
    """
    mistakes = []
    for name in names:
        facts = components.read(TRACKERS, name).class_facts
        if facts["requirements"] and importlib.util.find_spec(facts["package"]) is None:
            mistakes.append(
                f"track.to: {name} needs the package {facts['package']}, which is not installed; "
                f"pip install -r {facts['requirements']} -c constraints.txt"
            )
    if mistakes:
        raise ConfigError(mistakes)


def start(track: TrackConfig, run: TrackedRun, *, say: Callable[[str], None]) -> Trackers:
    """Start every tracker of ``track.to``.

    Args:
        track: The section of the config.
        run: What to record.
        say: Called with one line when a tracker changes its mode or is switched off.
    """
    found = []
    for name in track.to:
        component = components.read(TRACKERS, name)
        keys = {key.name: getattr(track, tracker_field(name, key.name)) for key in component.keys}
        make = functools.partial(_make, name, keys, run)
        found.append(Guarded(make, component.class_facts["title"] or name, say=say))
    for guarded in found:
        guarded.start()
    return Trackers(found)


def _make(
    name: str, keys: Mapping[str, Any], run: TrackedRun, say: Callable[[str], None]
) -> Tracker:
    tracker: Tracker = components.build(TRACKERS, name, keys, run=run, say=say)
    return tracker
