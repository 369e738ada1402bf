"""The names that a table file gives its runs now, and lines that were made under others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from engine.config.load import fingerprint
from engine.config.mistakes import ConfigError
from engine.tables.cells import Cell
from engine.tables.record import RunRecord, read, rewrite
from engine.tables.table_file import TableFile
from engine.tables.tuned import planned_runs
from engine.training.files import writing

Names = Mapping[str, tuple[str, str]]
"""(row, setting) by the fingerprint without seeds."""


def names_of(table: TableFile) -> Names:
    """Return the row and setting of each config of a table; none where the file has a mistake."""
    seed, subset_seed = table.seed_pairs[0]
    first = table.model_copy(update={"seeds": (seed,), "subset_seeds": (subset_seed,)})
    try:
        cells = planned_runs(first, Path(table.name))
    except ConfigError:
        return {}
    return {_group(cell): (cell.method, cell.setting) for cell in cells}


def renamed(records: Iterable[RunRecord], names: Names) -> list[RunRecord]:
    """Return records under the row and setting that the table file gives their configs now.

    One whose config is in the table no more keeps its own.
    """
    return [_renamed(record, names) for record in records]


def rename(path: Path, names: Names) -> int:
    """Give the lines of a results file the names of today; return how many had others.

    Raises:
        ConfigError: the file is damaged.
        WriteError: it cannot be written.
    """
    changed = sum(_renamed(record, names) is not record for record in read(path))
    if changed:
        with writing(path):
            rewrite(path, lambda records: renamed(records, names))
    return changed


def _renamed(record: RunRecord, names: Names) -> RunRecord:
    own = (record.method, record.setting)
    method, setting = names.get(record.group, own)
    if (method, setting) == own:
        return record
    return record.model_copy(update={"method": method, "setting": setting})


def _group(cell: Cell) -> str:
    """Return the fingerprint of a run without its seeds, and without those of its first stage."""
    before = cell.after
    planned = {} if before is None else {str(before.folder): _group(before)}
    return fingerprint(cell.config, without_seeds=True, planned=planned)
