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
from engine.tables.record import RunRecord, read
from engine.tables.shared_training import trained_apart
from engine.tables.table_file import TableFile
from engine.tables.worker import Event, Task, is_finished


class Display:
    """The terminal of one table.

    Args:
        cells: the runs asked for.
        task: what counts as done.
        workers: processes that share what is left.
        console: where to print; default the terminal.
    """

    def __init__(
        self, cells: Sequence[Cell], task: Task, *, workers: int, console: Console | None = None
    ) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.failures: list[str] = []
        self._cells, self._task, self._workers = cells, task, workers
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
        left = time_left(self._cells, self._task, workers=self._workers)
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


def time_left(cells: Sequence[Cell], task: Task, *, workers: int) -> str:
    """Return ``"; about 5 min left"``, by the training time of runs alike; empty if unknown."""
    known, left = read(task.results), task.left_of(cells)
    if not task.renew:
        left = [cell for cell in left if not is_finished(cell)]
    left = trained_apart(cells, left=left)
    if not known or not left:
        return ""
    means = _mean_seconds(known)
    seconds = sum(_estimate(cell, means) for cell in left) / workers
    return f"; about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Return seconds in the unit that a person would choose.

    >>> duration(41), duration(300), duration(9000)
    ('41 s', '5 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def listing(table: TableFile, cells: Sequence[Cell], task: Task, *, workers: int) -> list[str]:
    """Return what is done and what is to do, a line for each cell of the table and some for all."""
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
    rest = time_left(cells, task, workers=workers)
    done = len(cells) - len(left)
    lines.append(f"{done} of {len(cells)} runs done{rest}")
    if adopted := sum(map(is_finished, left)) if not task.renew else 0:
        lines.append(
            f"{adopted} of those left {'is' if adopted == 1 else 'are'} finished without a line: "
            "each gets its line from its folder, and is not trained again"
        )
    known = {record.fingerprint for record in read(task.results)}
    if again := sum(cell.fingerprint in known for cell in left) if not task.renew else 0:
        lines.append(
            f"{again} of those left {'has' if again == 1 else 'have'} a line and no folder: made "
            "again, as others start from their weights"
        )
    return lines


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
