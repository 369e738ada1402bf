"""What a tracker is told about a run, and the four calls it may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple


@dataclass(frozen=True)
class TrackedRun:
    """Who a run is, and where its files are.

    Attributes:
        folder: The run folder (or a study's), which a tracker may write below.
        root: ``track.root``, for a store that all runs share.
        run_id: The same for every segment of a resumed run.
        name: What a person reads in a list of runs: data, method and seed.
        group: What the run has in common with its repetitions under other seeds.
        config: The resolved config as plain nested values.
    """

    folder: Path
    root: Path
    run_id: str
    name: str
    group: str
    config: Mapping[str, Any]


class Confusion(NamedTuple):
    """True and predicted labels (N,) of the test images, and the C class names."""

    targets: Sequence[int]
    predicted: Sequence[int]
    class_names: Sequence[str]


@dataclass(frozen=True)
class Closing:
    """What stands for the whole run at its end.

    Attributes:
        values: Numbers and words by name.
        images: Image files by name.
        classes: One row a class, all with the same keys.
        confusion: Predictions on test, or None where they were not made or are too many to draw.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Path] = field(default_factory=dict)
    classes: Sequence[Mapping[str, Any]] = ()
    confusion: Confusion | None = None


class Tracker:
    """A place beside the run folder where a run can be watched and compared.

    A tracker is the one public class of its file in ``engine/report/tracking/``; ``track.to`` lists
    trackers by file name. Its constructor takes ``run`` (a :class:`TrackedRun`) and ``say`` (called
    with a line for the terminal) where it names them, then keyword-only arguments, which are config
    keys: ``path`` of ``engine/report/tracking/ledger.py`` is ``track.ledger_path``. A key called
    ``mode`` is spelled as the file alone (``track.wandb``).

    Every call may raise and may hang: :class:`engine.report.tracking.Trackers` sees to it that
    neither reaches the run. After an error nothing but :meth:`abandon` is called.
    """

    title: ClassVar[str] = ""
    """Name for messages; empty: the file's."""
    package: ClassVar[str] = ""
    """What it imports; imported before the first call, and counted as no delay."""
    requirements: ClassVar[str] = ""
    """File that pins ``package`` where requirements.txt does not."""

    @property
    def is_on(self) -> bool:
        """Whether it records anything; if not, it is never called."""
        return True

    def environment(self) -> Mapping[str, str]:
        """Return the environment variables that hold while the tracker is at work."""
        return {}

    def start(self) -> None:
        """Begin to record the run, or continue its record."""

    def log(self, values: Mapping[str, Any], *, step: int) -> None:
        """Record one epoch.

        Args:
            values: Numbers by name; an array (C,) among them stands for its histogram.
            step: Number of the epoch, from 1. After a resumption the last ones may come again.
        """
        raise NotImplementedError

    def close(self, closing: Closing) -> None:
        """Record what stands for the whole run; may come more than once."""

    def finish(self, *, failed: bool) -> None:
        """End the record; nothing comes after it."""

    def abandon(self) -> None:
        """Release what the tracker holds, after a call that failed."""
