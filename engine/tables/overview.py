"""One metric of a table with its settings side by side, as papers print it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.config.mistakes import ConfigError
from engine.tables.aggregate import HEADINGS, Block, Row
from engine.tables.beside import published_beside, reasons_of
from engine.tables.layout import (
    DAGGER,
    Entry,
    Sheet,
    marked,
    marked_best,
    marks_of,
    mean_entries,
    reading,
)
from engine.tables.published import SPLITS, Published
from engine.tables.style import NO_SHARE, Style
from engine.tables.table_file import Reference


def overview_of(
    blocks: Sequence[Block],
    metric: str,
    references: Sequence[Reference] = (),
    *,
    style: Style | None = None,
) -> Sheet:
    """Lay out a row for each method and a column for each setting, published accuracies behind.

    Args:
        blocks: of one table.
        metric: one of :data:`engine.tables.aggregate.HEADINGS`.
        references: tables in published.csv, used where the metric is an accuracy they print.
        style: how numbers are shown; its columns are not used.

    Raises:
        ConfigError: a row name that several configs bear.
    """
    style = style or Style()
    marks, notes = marked([row for block in blocks for row in block.rows])
    reasons: dict[str, None] = {}
    methods = list(dict.fromkeys(row.method for block in blocks for row in block.rows))
    columns = []
    for block in blocks:
        rows = [_only(block, method) for method in methods]
        entries = mean_entries(rows, metric, style=style)
        for number, row in enumerate(rows):
            if row is None:
                continue
            beside = [found for ref in references if (found := _number(row, ref, block, metric))]
            reasons |= dict.fromkeys(text for theirs in beside for text in reasons_of(theirs))
            entries[number] = _entry(entries[number], marks_of(row, marks), beside, style)
        columns.append(marked_best(entries, rows, metric, style=style))
    shared = dict.fromkeys(
        text for b in blocks for text in (*b.notes, *reading(b, metric, style=style))
    )
    if reasons:
        shared["in brackets: the published accuracy"] = None
    unit = " (%)" if style.is_percent and metric not in NO_SHARE else ""
    names = [Entry(style.label(method)) for method in methods]
    return Sheet(
        caption=f"{blocks[0].title}: test, {HEADINGS[metric]}{unit}, rule {blocks[0].rule}",
        headings=("method", *(block.setting for block in blocks)),
        rows=tuple(zip(names, *columns, strict=True)),
        notes=(*notes, *((DAGGER, text) for text in reasons), *(("", text) for text in shared)),
    )


def _only(block: Block, method: str) -> Row | None:
    rows = [row for row in block.rows if row.method == method]
    if len(rows) > 1:
        raise ConfigError(
            [
                f"{method} in {block.setting}: {len(rows)} configs bear this name, which the table "
                "without --metric shows apart"
            ]
        )
    return rows[0] if rows else None


def _number(row: Row, reference: Reference, block: Block, metric: str) -> Published | None:
    if metric not in SPLITS:
        return None
    return published_beside(row, reference, rule=block.rule, metric=metric)


def _entry(ours: Entry, own: tuple[str, ...], beside: Sequence[Published], style: Style) -> Entry:
    theirs = (f"[{style.number(number.accuracy, 'accuracy')}]" for number in beside)
    marks = (*own, *([DAGGER] if any(reasons_of(number) for number in beside) else []))
    return replace(ours, text=" ".join([ours.text, *theirs]), marks=marks)
