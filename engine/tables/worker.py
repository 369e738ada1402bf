"""One process at work on the runs of a table, beside others that may work on the same ones.

A run that another process is writing is passed over and looked at again at the end; so is one that
starts from a run which is not finished, or begins in one that is not so far. A results line is
added as soon as a run has finished. Any process may be killed at any moment: the lock on its run
falls with it, and whoever comes next resumes the run.
"""

from __future__ import annotations

import functools
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import train
from engine.config.mistakes import ConfigError
from engine.tables.cells import Cell
from engine.tables.record import RunRecord, append, from_run_folder
from engine.tables.shared_training import (
    Sources,
    begin_where_it_was,
    begins_there,
    is_there,
    remove_unneeded,
    to_leave,
)
from engine.tables.task import Task, is_finished, is_outdated
from engine.tables.trained_alike import Source, sources_of
from engine.training.run_folder import BusyError, RunFolder
from engine.training.signals import Interrupted, Interruption, interruptions

GLANCE_SECONDS = 0.5  # between two looks at runs that others are writing


class Event(NamedTuple):
    """Something to show: a run began, landed or failed, the rest is busy, a worker is lost."""

    kind: Literal["began", "landed", "failed", "waiting", "lost"]
    label: str
    text: str = ""


Outcome = Literal["done", "busy", "failed"]


class TimeUpError(Exception):
    """The time limit has passed; the run in hand resumes from its last epoch."""


def work(
    cells: Sequence[Cell],
    task: Task,
    *,
    notify: Callable[[Event], None],
    table: Sequence[Cell] | None = None,
) -> None:
    """Run every cell that has no line yet and that no other process runs.

    Args:
        cells: in the order in which they are wanted.
        task: what counts as done, where lines go, when to stop.
        notify: called with what happens. A run that fails is one event, and the next one begins.
        table: all cells of the table, those that are not wanted now among them; default ``cells``.

    Raises:
        ConfigError: a mistake that only the data, timm or the machine could reveal.
        Interrupted: by a signal, after a checkpoint.
        TimeUpError: after the epoch in which the deadline passed.
    """
    every = cells if table is None else table
    with interruptions() as interruption:
        guard = functools.partial(_guard, interruption, task)
        at_work = _AtWork(cells, every, sources_of(every), task, guard, notify)
        waiting = list(cells)
        while waiting:
            passed_over = []
            for cell in waiting:
                guard()
                outcome = _attempt(cell, at_work)
                if outcome == "failed":
                    at_work.failed.add(cell.fingerprint)
                elif outcome == "busy":
                    passed_over.append(cell)
            if len(passed_over) == len(waiting):
                notify(Event("waiting", passed_over[0].label, f"{len(passed_over)}"))
                time.sleep(GLANCE_SECONDS)
            waiting = passed_over


@dataclass(frozen=True)
class _AtWork:
    """What a process at work on a table knows; see :func:`work`.

    Attributes:
        sources: in which runs others begin.
        guard: raises where the process ought to stop.
        failed: the runs that have failed here.
    """

    cells: Sequence[Cell]
    table: Sequence[Cell]
    sources: Sources
    task: Task
    guard: Callable[[], None]
    notify: Callable[[Event], None]
    failed: set[str] = field(default_factory=set)

    def still_to_be_made(self) -> set[str]:
        """Return the fingerprints of all runs of the table that are left, wanted now or not."""
        return {cell.fingerprint for cell in self.task.left_of(self.table)}


def _attempt(cell: Cell, at_work: _AtWork) -> Outcome:
    """Run a cell if it is left, nobody else has it, and the runs that it builds on are there."""
    failed, notify = at_work.failed, at_work.notify
    left = {c.fingerprint for c in at_work.task.left_of(at_work.cells)}
    if cell.fingerprint not in left:
        return "done"
    before = cell.after
    if before is not None and (before.fingerprint in left or not is_finished(before)):
        if before.fingerprint not in failed:
            return "busy"
        notify(Event("failed", cell.label, f"it starts from {before.label}, which failed"))
        return "failed"
    source = at_work.sources.get(cell.fingerprint)
    if source is not None and source.is_whole and source.cell.fingerprint in failed:
        notify(Event("failed", cell.label, f"it is trained as {source.cell.label}, which failed"))
        return "failed"
    to_come = left - failed
    if (
        source is not None
        and begins_there(cell, source, left=to_come, renew=at_work.task.renew)
        and not is_there(cell, source)
    ):
        return "busy"
    return _run(cell, at_work, source=source)


def _guard(interruption: Interruption, task: Task) -> None:
    """Raise where the process ought to stop."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise Interrupted(signal.SIGTERM)
    if interruption.signal_number is not None:
        raise Interrupted(interruption.signal_number)
    if task.deadline is not None and time.monotonic() >= task.deadline:
        raise TimeUpError


def _run(cell: Cell, at_work: _AtWork, *, source: Source | None) -> Outcome:
    """Run, resume or merely read one cell, and add its line; ``busy`` if another process has it.

    Epochs of ``source`` by the code of today are not trained again.
    """
    import torch

    from engine.report.terminal import Terminal
    from engine.training.divergence import DivergenceError

    task, notify = at_work.task, at_work.notify
    folder = RunFolder(cell.folder)
    if folder.is_owned():
        return "busy"

    def report(_epoch: int, _row: Mapping[str, Any]) -> None:
        at_work.guard()

    notify(Event("began", cell.label))
    fresh = task.renew and is_outdated(cell)
    try:
        if source is not None and is_there(cell, source):
            if fresh:
                folder.set_aside()
                fresh = False
            begin_where_it_was(cell, source)
        train.run(
            cell.config,
            report=report,
            fresh=fresh,
            command=("reproduce.py", *sys.argv[1:]),
            screen=Terminal.silent(),
            leave=to_leave(cell, at_work.sources, left=at_work.still_to_be_made()),
        )
    except BusyError:
        return "busy"
    except ConfigError as error:
        raise ConfigError([f"{cell.label}: {mistake}" for mistake in error.mistakes]) from error
    except (DivergenceError, torch.OutOfMemoryError) as error:
        notify(Event("failed", cell.label, str(error).partition("\n")[0]))
        return "failed"
    record = from_run_folder(
        folder.path, table=task.table, method=cell.method, setting=cell.setting, words=cell.words
    )
    append(task.results, record)
    concerned = [cell] if source is None else [cell, source.cell]
    remove_unneeded(concerned, at_work.sources, left=at_work.still_to_be_made())
    notify(Event("landed", cell.label, _landed(record, source)))
    return "done"


def _landed(record: RunRecord, source: Source | None) -> str:
    """Return a run's result in a few words, and how long it was trained itself."""
    balanced = record.rules[record.headline].test["balanced_accuracy"]
    score = "undefined" if balanced is None else f"{balanced:.4f}"
    said = f"balanced accuracy {score}, {record.own_seconds:.1f} s"
    if record.trained_as is None or source is None:
        return said
    number = record.shared_epochs
    epochs = "all epochs" if number is None else f"epochs 1 to {number}"
    return f"{said}; {epochs} are those of {source.cell.method}"
