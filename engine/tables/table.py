"""The lines of a table and its description: read, averaged, laid out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from engine.config.mistakes import ConfigError, nearest
from engine.tables import formats, record, table_file
from engine.tables.aggregate import HEADINGS, METRICS, Block, Wanted, blocks
from engine.tables.beside import unmatched
from engine.tables.layout import Sheet, sheet_of
from engine.tables.names import names_of, renamed
from engine.tables.overview import overview_of
from engine.tables.published import SPLITS
from engine.tables.record import RunRecord
from engine.tables.style import Style
from engine.tables.table_file import Reference, TableFile, read_table_file
from engine.tables.tuned import tuned_file

WIDE = 1000
"""Columns of characters where output goes to a file."""


@dataclass(frozen=True)
class Table:
    """The lines of a table, and its description where there is one."""

    records: list[RunRecord]
    description: TableFile | None

    @property
    def references(self) -> tuple[Reference, ...]:
        """The same table in the literature."""
        return self.description.published if self.description else ()


def read_table(source: Path) -> Table:
    """Read results lines, given themselves or by the YAML file that describes their table.

    They bear the names that the description gives their configs now.

    Raises:
        ConfigError: no such file, no line in it, or a line that is none.
    """
    if source.suffix == ".jsonl":
        results, described = source, table_file.PAPERS / f"{source.stem}.yaml"
    else:
        results, described = table_file.RESULTS / f"{source.stem}.jsonl", source
    is_described = described == source or described.exists()
    description = read_table_file(described) if is_described else None
    if not results.exists():
        how = "" if description is None else f"; {_making(description, source)}"
        raise ConfigError([f"{results}: no such file{how}"])
    records = record.read(results)
    if not records:
        raise ConfigError([f"{results}: no results yet"])
    tables = sorted({line.table for line in records})
    if len(tables) > 1:
        raise ConfigError([f"{results}: lines of several tables: {', '.join(tables)}"])
    if description is not None:
        records = renamed(records, names_of(description))
    return Table(records, description)


def _making(table: TableFile, path: Path) -> str:
    """Say which command makes the lines of a table, or has to come before it."""
    if table.tune is not None and not tuned_file(table).exists():
        return f"it is not tuned yet: python reproduce.py {path} --tune, and then without --tune"
    return f"python reproduce.py {path} makes it"


def title_of(table: Table) -> str:
    """Return the heading of a table; its name where nothing describes it."""
    return table.description.title if table.description else table.records[0].table


def style_of(
    table: Table,
    *,
    columns: Sequence[str] | None = None,
    is_percent: bool = False,
    is_best: bool = False,
    has_costs: bool = False,
) -> Style:
    """Return how a table is shown: as its description calls the rows, and as options want it.

    Raises:
        ConfigError: a column that is no metric.
    """
    for metric in columns or ():
        if metric not in HEADINGS:
            hint = nearest(metric, HEADINGS)
            raise ConfigError([f"--columns {metric}: unknown{hint}; one of {' | '.join(HEADINGS)}"])
    return Style(
        columns=tuple(dict.fromkeys(columns)) if columns else tuple(METRICS),
        is_percent=is_percent,
        marks="best" if is_best else "difference",
        has_costs=has_costs,
        labels=table.description.labels if table.description else {},
    )


def blocks_of(
    table: Table,
    *,
    rule: str | None = None,
    baseline: str | None = None,
    columns: Sequence[str] = tuple(METRICS),
) -> list[Block]:
    """Return the blocks of a table as its description wants them, options first.

    Raises:
        ConfigError: no such baseline, or runs whose headlines differ where no rule is named.
    """
    # Published numbers are set beside the accuracy, shown or not.
    metrics = tuple(dict.fromkeys([*columns, "accuracy"]))
    wanted = Wanted(rule=rule, baseline=baseline, metrics=metrics)
    if (description := table.description) is not None:
        wanted = replace(
            wanted,
            rule=rule or description.rule,
            baseline=baseline or description.baseline,
            methods=tuple(description.methods),
            settings=tuple(description.settings),
            pairs=tuple(description.seed_pairs),
            notes=(" ".join(description.notes.split()),) if description.notes else (),
        )
    return blocks(table.records, wanted)


def sheets_of(
    blocks: Sequence[Block],
    references: Sequence[Reference],
    *,
    metric: str | None = None,
    style: Style | None = None,
) -> list[Sheet]:
    """Return a sheet for each block, or one of a single metric over all of them.

    Published lines that stand beside no row are named with the reason.

    Raises:
        ConfigError: no such metric.
    """
    if metric is not None and metric not in HEADINGS:
        hint = nearest(metric, HEADINGS)
        raise ConfigError([f"--metric {metric}: unknown{hint}; one of {' | '.join(HEADINGS)}"])
    if metric is None:
        sheets = [sheet_of(block, references, style=style) for block in blocks]
    else:
        sheets = [overview_of(blocks, metric, references, style=style)]
        references = references if metric in SPLITS else ()
    absent = tuple(("", text) for text in unmatched(blocks, references))
    return [replace(sheet, notes=sheet.notes + absent) for sheet in sheets]


def show(sheets: Sequence[Sheet]) -> None:
    """Print sheets on the terminal; in a file they are never folded."""
    width = None if sys.stdout.isatty() else WIDE
    formats.terminal(sheets, Console(highlight=False, width=width))
