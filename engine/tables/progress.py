"""What a person sees while a table is made: a bar or plain lines, what landed, and what is left."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from engine.config.messages import one_line
from engine.tables.cells import Cell
from engine.tables.command_line import Plan
from engine.tables.record import RunRecord, read
from engine.tables.shared_training import Sources, shares_to_train
from engine.tables.task import Task, is_finished
from engine.tables.trained_alike import sources_of
from engine.tables.worker import Event


class Display:
    """The terminal of one table.

    Args:
        cells: the runs asked for.
        task: what counts as done.
        workers: processes that share what is left.
        console: where to print; default the terminal.
        table: all runs of the table; default ``cells``.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        task: Task,
        *,
        workers: int,
        console: Console | None = None,
        table: Sequence[Cell] | None = None,
    ) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.failures: list[str] = []
        self._cells, self._task, self._workers = cells, task, workers
        self._sources = sources_of(cells if table is None else table)
        self._bar: Progress | None = None
        self._last_wait = ""

    def say(self, line: str) -> None:
        """Print one line; markup in it stays inert."""
        self.console.print(Text(one_line(line)))

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Show a bar inside the block where there is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=self.console, transient=True) as self._bar:
            self._bar.add_task("", total=len(self._cells), completed=self._num_done())
            yield
        self._bar = None

    def show(self, event: Event) -> None:
        """Take in what a worker reports."""
        left = time_left(self._cells, self._task, workers=self._workers, sources=self._sources)
        if event.kind == "landed":
            self.say(f"[{self._num_done()}/{len(self._cells)}] {event.label}: {event.text}{left}")
        elif event.kind == "failed":
            self.failures.append(event.label)
            self.say(f"failed: {event.label}: {event.text}")
        elif event.kind == "lost":
            self.say(f"a worker ended with {event.text}; the others take up what it left")
        elif event.kind == "waiting" and event.text != self._last_wait:
            self._last_wait = event.text
            self.say(f"waiting for {event.text} run(s) of another process, {event.label} first")
        if self._bar is not None:
            (bar,) = self._bar.task_ids
            self._bar.update(bar, completed=self._num_done(), description=event.label + left)

    def _num_done(self) -> int:
        return len(self._cells) - len(self._task.left_of(self._cells))


def time_left(cells: Sequence[Cell], task: Task, *, workers: int, sources: Sources) -> str:
    """Return ``"; about 5 min left"``, by the training time of runs alike; empty if unknown."""
    known, left = read(task.results), _to_train(cells, task)
    shares = shares_to_train(left, sources, renew=task.renew)
    if not known or not any(shares):
        return ""
    means = _mean_seconds(known)
    seconds = sum(
        _estimate(cell, means) * share for cell, share in zip(left, shares, strict=True) if share
    )
    return f"; about {duration(seconds / workers)} left"


def duration(seconds: float) -> str:
    """Return seconds in the unit that a person would choose.

    >>> duration(41), duration(300), duration(9000)
    ('41 s', '5 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def listing(plan: Plan) -> list[str]:
    """Return what is done and what is to do, a line for each cell of the table and some for all."""
    table, cells, task = plan.table, plan.cells, plan.task
    left = task.left_of(cells)
    counts: dict[tuple[str, str], list[int]] = {}
    waiting = {cell.fingerprint for cell in left}
    for cell in cells:
        pair = counts.setdefault((cell.method, cell.setting), [0, 0])
        pair[0] += cell.fingerprint not in waiting
        pair[1] += 1
    width = max(len(method) for method in table.methods)
    lines = [
        f"{method:<{width}}  {setting}: {done} of {total}"
        for (method, setting), (done, total) in counts.items()
    ]
    sources = sources_of(plan.every)
    rest = time_left(cells, task, workers=plan.workers, sources=sources)
    done = len(cells) - len(left)
    lines.append(f"{done} of {len(cells)} runs done{rest}")
    if adopted := sum(map(is_finished, left)) if not task.renew else 0:
        lines.append(
            f"{adopted} of those left {'is' if adopted == 1 else 'are'} finished without a line: "
            "each gets its line from its folder, and is not trained again"
        )
    lines += _shared(_to_train(cells, task), sources, renew=task.renew)
    known = {record.fingerprint for record in read(task.results)}
    if again := sum(cell.fingerprint in known for cell in left) if not task.renew else 0:
        lines.append(
            f"{again} of those left {'has' if again == 1 else 'have'} a line and no folder: made "
            "again, as others start from their weights"
        )
    return lines


def _to_train(cells: Sequence[Cell], task: Task) -> list[Cell]:
    """Return the runs that are left, without those that only need their line."""
    left = task.left_of(cells)
    return left if task.renew else [cell for cell in left if not is_finished(cell)]


def _shared(left: Sequence[Cell], sources: Sources, *, renew: bool) -> Iterator[str]:
    """Say how many epochs of the runs that are left another row trains, or has trained."""
    shares = shares_to_train(left, sources, renew=renew)
    epochs = [cell.config.schedule.epochs for cell in left]
    spared = sum(round(n * (1 - share)) for n, share in zip(epochs, shares, strict=True))
    if number := sum(share < 1 for share in shares):
        begin = "begins" if number == 1 else "begin"
        yield (
            f"{number} of those left {begin} in another row: {spared:,} of {sum(epochs):,} epochs "
            "are not trained again"
        )


def _mean_seconds(known: Sequence[RunRecord]) -> dict[tuple[str, ...], float]:
    """Return the mean training time of each cell, of each setting, and of all runs."""
    groups: dict[tuple[str, ...], list[float]] = {}
    for record in known:
        for place in _places(record):
            groups.setdefault(place, []).append(record.seconds)
    return {place: statistics.mean(seconds) for place, seconds in groups.items()}


def _estimate(cell: Cell, means: Mapping[tuple[str, ...], float]) -> float:
    """Estimate seconds by the mean of the same cell, else of its setting, else of all runs."""
    return next(means[place] for place in _places(cell) if place in means)


def _places(run: Cell | RunRecord) -> tuple[tuple[str, ...], ...]:
    return (run.method, run.setting), (run.setting,), ()
