"""The trackers of one run, from the moment its folder is its own to the end, however it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.report import tracking
from engine.report.tracking import check_installed
from engine.training.checkpointer import Progress
from engine.training.evaluation import Assessment
from engine.training.journal import Journal
from engine.training.processes import Processes
from engine.training.signals import EndedEarly
from engine.training.summary import Summary

__all__ = ["RunTrackers", "check_installed", "tracked"]


class RunTrackers:
    """What the trackers are told of a run; in processes other than the main one there are none.

    Args:
        journal: of the run, which has begun.
    """

    def __init__(self, journal: Journal) -> None:
        self.config, self.class_names = journal.config, journal.dataset.class_names
        track = self.config.track
        self.trackers = tracking.Trackers()
        if Processes.current().is_main:
            run = tracking.TrackedRun(
                folder=journal.folder.path,
                root=Path(track.root).expanduser(),
                run_id=journal.environment["wandb_id"],
                name=tracking.run_name(self.config),
                group=track.group or journal.identity["group"],
                config=self.config.model_dump(mode="json"),
            )
            self.trackers = tracking.start(track, run, say=journal.say)
        for row in tracking.logged_again(journal.rows()):
            self.epoch(row, val=None)

    def epoch(self, row: Mapping[str, Any], *, val: Assessment | None) -> None:
        """Record one epoch: its line of metrics.jsonl, and the validation scores of each class."""
        values = tracking.values_of(
            row,
            self.class_names,
            mode=self.config.track.per_class,
            scores=None if val is None else val.metrics.per_class,
        )
        self.trackers.log(values, step=row["epoch"])

    def result(
        self, summary: Summary, *, test: Assessment | None, figures: Mapping[str, Path]
    ) -> None:
        """Record what the run has come to; without test, what a search compares it by."""
        if test is not None:
            self.trackers.close(tracking.closing_of(summary, test=test, figures=figures))
            return
        measure = self.config.evaluate.metric.removeprefix("val/")
        objective = (summary.result.val or {}).get(measure)
        values = {**tracking.closing_values(summary), "objective": objective}
        self.trackers.close(tracking.Closing(values))


@contextlib.contextmanager
def tracked(journal: Journal, *, progress: Progress) -> Iterator[RunTrackers]:
    """Track a run inside the block.

    Args:
        journal: of the run, which has begun.
        progress: says what a run that was ended early had reached.
    """
    run = RunTrackers(journal)
    try:
        yield run
    except EndedEarly:
        if (kept := progress.best.get("val")) is not None:
            values = {"objective": kept["value"], "ended_early": True}
            run.trackers.close(tracking.Closing(values))
        run.trackers.finish()
        raise
    except BaseException:
        run.trackers.finish(failed=True)
        raise
    run.trackers.finish()
