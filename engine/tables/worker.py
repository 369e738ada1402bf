"""One process at work on the runs of a table, beside others that may work on the same ones.

A run that another process is writing is passed over and looked at again at the end; so is one that
starts from a run which is not finished, or is trained as one. A results line is added as soon as a
run has finished. Any process may be killed at any moment: the lock on its run falls with it, and
whoever comes next resumes the run.
"""

from __future__ import annotations

import functools
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import train
from engine.config.mistakes import ConfigError
from engine.tables.cells import Cell
from engine.tables.record import append, from_run_folder, read
from engine.tables.shared_training import begin_where_it_ended, source_of
from engine.training.code_hash import code_hash
from engine.training.files import read_json
from engine.training.run_folder import BusyError, RunFolder
from engine.training.signals import Interrupted, Interruption, interruptions

GLANCE_SECONDS = 0.5  # between two looks at runs that others are writing


@dataclass(frozen=True)
class Task:
    """What counts as done, where lines go, and when to stop.

    Attributes:
        table: name of the table.
        results: the file of its lines.
        renew: run again what other code has made.
        deadline: when to stop, on the clock of ``time.monotonic``.
    """

    table: str
    results: Path
    renew: bool = False
    deadline: float | None = None

    def left_of(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells without a line, or with one by other code where that does not count.

        A run that one of them starts from is left too where its folder is not finished, whatever
        its line says: a second stage needs the weights.

        Raises:
            ConfigError: the file of lines is damaged.
        """
        code_of = {record.fingerprint: record.code_hash for record in read(self.results)}
        left = {
            cell.fingerprint
            for cell in cells
            if cell.fingerprint not in code_of
            or (self.renew and code_of[cell.fingerprint] != code_now(cell))
            or (self.renew and cell.after is not None and is_outdated(cell))
        }
        for cell in cells:
            if cell.fingerprint in left:
                left |= {c.fingerprint for c in cell.stages_before() if not is_finished(c)}
        return [cell for cell in cells if cell.fingerprint in left]


def code_now(cell: Cell) -> str:
    """Return the hash of the files that this run would import."""
    if cell.fingerprint not in _CODE_NOW:
        _CODE_NOW[cell.fingerprint] = code_hash(cell.config)
    return _CODE_NOW[cell.fingerprint]


_CODE_NOW: dict[str, str] = {}  # by fingerprint, since a config with arguments cannot be hashed


def is_finished(cell: Cell) -> bool:
    """Return whether the run's folder holds its result."""
    return RunFolder(cell.folder).summary.exists()


def is_outdated(cell: Cell) -> bool:
    """Return whether other code made the run, or the run it starts from has been made again."""
    segments = _segments(cell)
    if any(segment["code_hash"] != code_now(cell) for segment in segments):
        return True
    earlier = _segments(cell.after) if cell.after is not None else []
    return bool(segments and earlier) and segments[0]["began"] < earlier[0]["began"]


def _segments(cell: Cell) -> list[dict[str, Any]]:
    environment = read_json(RunFolder(cell.folder).environment) or {"segments": []}
    segments: list[dict[str, Any]] = environment["segments"]
    return segments


class Event(NamedTuple):
    """Something to show: a run began, landed or failed, the rest is busy, a worker is lost."""

    kind: Literal["began", "landed", "failed", "waiting", "lost"]
    label: str
    text: str = ""


Outcome = Literal["done", "busy", "failed"]


class TimeUpError(Exception):
    """The time limit has passed; the run in hand resumes from its last epoch."""


def work(cells: Sequence[Cell], task: Task, *, notify: Callable[[Event], None]) -> None:
    """Run every cell that has no line yet and that no other process runs.

    Args:
        cells: in the order in which they are wanted.
        task: what counts as done, where lines go, when to stop.
        notify: called with what happens. A run that fails is one event, and the next one begins.

    Raises:
        ConfigError: a mistake that only the data, timm or the machine could reveal.
        Interrupted: by a signal, after a checkpoint.
        TimeUpError: after the epoch in which the deadline passed.
    """
    failed: set[str] = set()
    with interruptions() as interruption:
        guard = functools.partial(_guard, interruption, task)
        waiting = list(cells)
        while waiting:
            passed_over = []
            for cell in waiting:
                guard()
                outcome = _attempt(cell, cells, task, failed=failed, guard=guard, notify=notify)
                if outcome == "failed":
                    failed.add(cell.fingerprint)
                elif outcome == "busy":
                    passed_over.append(cell)
            if len(passed_over) == len(waiting):
                notify(Event("waiting", passed_over[0].label, f"{len(passed_over)}"))
                time.sleep(GLANCE_SECONDS)
            waiting = passed_over


def _attempt(
    cell: Cell,
    cells: Sequence[Cell],
    task: Task,
    *,
    failed: set[str],
    guard: Callable[[], None],
    notify: Callable[[Event], None],
) -> Outcome:
    """Run a cell if it is left, nobody else has it, and the runs that it builds on are there."""
    left = {c.fingerprint for c in task.left_of(cells)}
    if cell.fingerprint not in left:
        return "done"
    before = cell.after
    if before is not None and (before.fingerprint in left or not is_finished(before)):
        if before.fingerprint not in failed:
            return "busy"
        notify(Event("failed", cell.label, f"it starts from {before.label}, which failed"))
        return "failed"
    source = source_of(cell, cells)
    if source is not None and source.fingerprint in failed:
        notify(Event("failed", cell.label, f"it is trained as {source.label}, which failed"))
        return "failed"
    if source is not None and source.fingerprint in left:
        return "busy"
    return _run(cell, task, source=source, guard=guard, notify=notify)


def _guard(interruption: Interruption, task: Task) -> None:
    """Raise where the process ought to stop."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise Interrupted(signal.SIGTERM)
    if interruption.signal_number is not None:
        raise Interrupted(interruption.signal_number)
    if task.deadline is not None and time.monotonic() >= task.deadline:
        raise TimeUpError


def _run(
    cell: Cell,
    task: Task,
    *,
    source: Cell | None,
    guard: Callable[[], None],
    notify: Callable[[Event], None],
) -> Outcome:
    """Run, resume or merely read one cell, and add its line; ``busy`` if another process has it.

    Weights of ``source`` by the code of today are not trained again.
    """
    import torch

    from engine.report.terminal import Terminal
    from engine.training.divergence import DivergenceError

    folder = RunFolder(cell.folder)
    if folder.is_owned():
        return "busy"

    def report(_epoch: int, _row: Mapping[str, Any]) -> None:
        guard()

    notify(Event("began", cell.label))
    fresh = task.renew and is_outdated(cell)
    try:
        if source is not None and is_finished(source) and not is_outdated(source):
            if fresh:
                folder.set_aside()
                fresh = False
            begin_where_it_ended(cell, source)
        train.run(
            cell.config,
            report=report,
            fresh=fresh,
            command=("reproduce.py", *sys.argv[1:]),
            screen=Terminal.silent(),
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
    balanced = record.rules[record.headline].test["balanced_accuracy"]
    score = "undefined" if balanced is None else f"{balanced:.4f}"
    notify(Event("landed", cell.label, f"balanced accuracy {score}, {record.seconds:.1f} s"))
    return "done"
