"""What is to be done of a table: which runs are left, and which of them other code has made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.tables.cells import Cell
from engine.tables.record import read
from engine.training.code_hash import code_hash
from engine.training.files import read_json
from engine.training.run_folder import RunFolder


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
