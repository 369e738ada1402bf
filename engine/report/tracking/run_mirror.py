"""The W&B mirror of one run, from the moment its folder is its own to the end, however it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.report.tracking import (
    Mirror,
    chosen_mode,
    closing_values,
    per_class_values,
    without_lists,
)
from engine.training.checkpoint import Progress
from engine.training.evaluation import Assessment
from engine.training.journal import Journal
from engine.training.processes import Processes
from engine.training.signals import EndedEarly
from engine.training.summary import Summary


class RunMirror:
    """What W&B is told of a run; in processes other than the main one it is told nothing.

    Args:
        journal: of the run, which has begun.
        class_names: in label order.
    """

    def __init__(self, journal: Journal, *, class_names: Sequence[str]) -> None:
        self.config, self.class_names = journal.config, class_names
        track, folder = self.config.track, journal.folder.path
        self.mirror = Mirror(
            folder,
            mode=chosen_mode(track.wandb) if Processes.current().is_main else "disabled",
            run_id=journal.environment["wandb_id"],
            identity={
                "project": "tailfocus",
                "group": track.group or journal.identity["group"],
                "name": f"{folder.parent.name}-{journal.identity['fingerprint']}",
            },
            config=self.config.model_dump(mode="json"),
            say=journal.say,
        )

    def epoch(self, row: Mapping[str, Any], *, val: Assessment | None) -> None:
        """Record one epoch: its line of metrics.jsonl, and the validation scores of each class."""
        by_class: Mapping[str, Any] = {}
        if val is not None:
            by_class = per_class_values(
                "val",
                val.metrics.per_class,
                names=self.class_names,
                mode=self.config.track.per_class,
            )
        self.mirror.log({**without_lists(row), **by_class}, step=row["epoch"])

    def result(
        self, summary: Summary, *, test: Assessment | None, figures: Mapping[str, Path]
    ) -> None:
        """Record what the run has come to; without test, what a search compares it by."""
        if test is not None:
            epochs = self.config.schedule.epochs
            self.mirror.log_final(summary, figures=figures, test=test, step=epochs)
            return
        measure = self.config.evaluate.metric.removeprefix("val/")
        objective = (summary.result.val or {}).get(measure)
        self.mirror.summarise({**closing_values(summary), "objective": objective})


@contextlib.contextmanager
def mirrored(
    journal: Journal, *, class_names: Sequence[str], progress: Progress
) -> Iterator[RunMirror]:
    """Mirror a run inside the block.

    Args:
        journal: of the run, which has begun.
        class_names: in label order.
        progress: says what a run that was ended early had reached.
    """
    run = RunMirror(journal, class_names=class_names)
    try:
        yield run
    except EndedEarly:
        if (kept := progress.best.get("val")) is not None:
            run.mirror.summarise({"objective": kept["value"], "ended_early": True})
        run.mirror.finish()
        raise
    except BaseException:
        run.mirror.finish(failed=True)
        raise
    run.mirror.finish()
