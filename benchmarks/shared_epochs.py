"""A table with and without epochs that rows share: ``python -m benchmarks.shared_epochs``.

Rows of digits_lt, all of one seed, are made by one process: together, as a table makes them, and
one by one, each as if it were alone. The two ways take turns; CPU time of this process counts. The
lines are compared: they must be equal but for the clock.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.command_line import Parser, at_least
from engine.config.load import fingerprint
from engine.tables.cells import Cell
from engine.tables.record import RunRecord, read
from engine.tables.table_file import read_table_file
from engine.tables.task import Task
from engine.tables.trained_alike import sources_of
from engine.tables.tuned import planned_runs
from engine.tables.worker import work

TABLE = Path("experiments/papers/digits_lt.yaml")
METHODS = ("cross_entropy", "influence_balanced", "deferred_reweighting", "deferred_sampling")
OWN = {"trained_as", "shared_epochs", "shared_seconds", "seconds", "cost"}  # and the clock's


class Made(NamedTuple):
    """The lines of some runs, and the CPU seconds that they took."""

    records: Sequence[RunRecord]
    seconds: float


def runs(epochs: int) -> list[Cell]:
    """Return the first seed of the rows, with so many epochs."""
    found = []
    for cell in planned_runs(read_table_file(TABLE), TABLE):
        if cell.method in METHODS and cell.seed == 0:
            schedule = cell.config.schedule.model_copy(update={"epochs": epochs})
            config = cell.config.model_copy(update={"schedule": schedule})
            words = (*cell.words, f"schedule.epochs={epochs}")
            found.append(replace(cell, config=config, words=words, fingerprint=fingerprint(config)))
    return found


def made(cells: Sequence[Cell], *, together: bool) -> Made:
    """Make the runs in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        task = Task("digits_lt", Path(folder) / "lines.jsonl")
        rooted = [cell.with_root(Path(folder)) for cell in cells]
        began = time.process_time()
        for group in [rooted] if together else [[cell] for cell in rooted]:
            work(group, task, notify=lambda _event: None)
        return Made(read(task.results), time.process_time() - began)


def main() -> None:
    """Print CPU seconds of both ways, and their ratio."""
    parser = Parser("benchmarks.shared_epochs", __doc__)
    parser.add_numbers(("--rounds", 3, "turns of each way"))
    least = 6  # fewer have no last fifth
    help_text = f"epochs of a run, {least} or more (40)"
    parser.add_argument("--epochs", type=at_least(least), default=40, metavar="N", help=help_text)
    options = parser.parse_args()
    cells = runs(options.epochs)
    shared = sum(source.epochs for source in sources_of(cells).values())
    total = len(cells) * options.epochs
    print(f"{len(cells)} runs of {options.epochs} epochs: {total - shared} of {total} to train")
    made(cells[:1], together=True)  # imports and data: in no round
    ratios = []
    for number in range(options.rounds):
        order = (True, False) if number % 2 else (False, True)
        found = {together: made(cells, together=together) for together in order}
        lines = [[r.model_dump(exclude=OWN) for r in found[way].records] for way in order]
        assert lines[0] == lines[1], "the two ways gave other numbers"
        ratios.append(found[True].seconds / found[False].seconds)
        print(
            f"round {number + 1}: {found[True].seconds:.2f} s together, "
            f"{found[False].seconds:.2f} s one by one: {ratios[-1]:.3f}; equal lines",
            flush=True,
        )
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    print(f"ratio {middle:.3f} ({low:.3f} to {high:.3f}), n = {options.rounds}")


if __name__ == "__main__":
    main()
