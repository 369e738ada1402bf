"""One process at work on the runs of a table, beside others that may work on the same ones.

A run that another process is writing is passed over and looked at again at the end; a results line
is added as soon as a run has finished. Any process may be killed at any moment: the lock on its run
falls with it, and whoever comes next resumes the run.
"""

from __future__ import annotations

import functools
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import train
from engine.config.mistakes import ConfigError
from engine.tables.record import append, from_run_folder
from engine.tables.table_file import Cell
from engine.tables.task import Task, code_now
from engine.training.files import read_json
from engine.training.run_folder import BusyError, RunFolder
from engine.training.signals import Interrupted, Interruption, interruptions

GLANCE_SECONDS = 0.5  # between two looks at runs that others are writing


class Event(NamedTuple):
    """Something to show: a run began, landed or failed, the rest is busy, a worker is lost."""

    kind: Literal["began", "landed", "failed", "waiting", "lost"]
    label: str
    text: str = ""


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
    with interruptions() as interruption:
        guard = functools.partial(_guard, interruption, task)
        waiting = list(cells)
        while waiting:
            passed_over = []
            for cell in waiting:
                guard()
                if task.left_of([cell]) and not _run(cell, task, guard=guard, notify=notify):
                    passed_over.append(cell)
            if len(passed_over) == len(waiting):
                notify(Event("waiting", passed_over[0].label, f"{len(passed_over)}"))
                time.sleep(GLANCE_SECONDS)
            waiting = passed_over


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
    cell: Cell, task: Task, *, guard: Callable[[], None], notify: Callable[[Event], None]
) -> bool:
    """Run, resume or merely read one cell, and add its line; False if another process has it."""
    import torch

    from engine.report.terminal import Terminal
    from engine.training.divergence import DivergenceError

    folder = RunFolder(cell.folder)
    if folder.is_owned():
        return False

    def report(_epoch: int, _row: Mapping[str, Any]) -> None:
        guard()

    notify(Event("began", cell.label))
    try:
        train.run(
            cell.config,
            report=report,
            fresh=task.renew and _is_by_other_code(folder, code_now(cell)),
            command=("reproduce.py", *sys.argv[1:]),
            screen=Terminal.silent(),
        )
    except BusyError:
        return False
    except ConfigError as error:
        raise ConfigError([f"{cell.label}: {mistake}" for mistake in error.mistakes]) from error
    except (DivergenceError, torch.OutOfMemoryError) as error:
        notify(Event("failed", cell.label, str(error).partition("\n")[0]))
        return True
    record = from_run_folder(
        folder.path, table=task.table, method=cell.method, setting=cell.setting, words=cell.words
    )
    append(task.results, record)
    balanced = record.rules[record.headline].test["balanced_accuracy"]
    score = "undefined" if balanced is None else f"{balanced:.4f}"
    notify(Event("landed", cell.label, f"balanced accuracy {score}, {record.seconds:.1f} s"))
    return True


def _is_by_other_code(folder: RunFolder, code: str) -> bool:
    environment = read_json(folder.environment) or {"segments": []}
    return any(segment["code_hash"] != code for segment in environment["segments"])
