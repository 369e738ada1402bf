"""What a process that makes a table is to do, and how much of it is left."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.tables.record import read
from engine.tables.table_file import Cell
from engine.training.code_hash import code_hash


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
        """The cells without a line, or with one by other code where that does not count.

        Raises:
            ConfigError: the file of lines is damaged.
        """
        code_of = {record.fingerprint: record.code_hash for record in read(self.results)}
        return [
            cell
            for cell in cells
            if cell.fingerprint not in code_of
            or (self.renew and code_of[cell.fingerprint] != code_now(cell))
        ]


def code_now(cell: Cell) -> str:
    """The hash of the files that this run would import."""
    return _code_now(cell.config)


_code_now = functools.cache(code_hash)
