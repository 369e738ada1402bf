"""One metric of a table with its settings side by side, as papers print it."""

from __future__ import annotations

from collections.abc import Sequence

from engine.config.mistakes import ConfigError
from engine.report.statistics import DASH
from engine.tables.aggregate import METRICS, Block, Row
from engine.tables.layout import (
    DAGGER,
    Entry,
    Sheet,
    letters,
    mean_entry,
    published_beside,
    reading,
    reasons_of,
)
from engine.tables.published import Published
from engine.tables.table_file import Published as Reference


def overview_of(
    blocks: Sequence[Block], metric: str, references: Sequence[Reference] = ()
) -> Sheet:
    """A row for each method, a column for each setting; published accuracies stand behind ours.

    Args:
        blocks: of one table.
        metric: one of :data:`METRICS`.
        references: tables in published.csv, used where the metric is accuracy.

    Raises:
        ConfigError: a row name that several configs bear.
    """
    marks, notes = letters(), list[tuple[str, str]]()
    methods = dict.fromkeys(row.method for block in blocks for row in block.rows)
    rows = []
    for method in methods:
        entries = [Entry(method)]
        for block in blocks:
            row = _only(block, method)
            if row is None:
                entries.append(Entry(DASH))
                continue
            own = tuple(next(marks) for _ in row.notes)
            notes += zip(own, row.notes, strict=True)
            beside = [found for ref in references if (found := _number(row, ref, block, metric))]
            notes += [(DAGGER, text) for number in beside for text in reasons_of(number)]
            entries.append(_entry(mean_entry(row, metric), own, beside))
        rows.append(tuple(entries))
    shared = dict.fromkeys(text for b in blocks for text in (*b.notes, *reading(b, metric)))
    if any(mark == DAGGER for mark, _ in notes):
        shared["in brackets: the published accuracy"] = None
    return Sheet(
        caption=f"{blocks[0].title}: test, {METRICS[metric]}, rule {blocks[0].rule}",
        headings=("method", *(block.setting for block in blocks)),
        rows=tuple(rows),
        notes=(*notes, *(("", text) for text in shared)),
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
    if metric != "accuracy":
        return None
    return published_beside(row, reference, rule=block.rule)


def _entry(ours: Entry, own: tuple[str, ...], beside: Sequence[Published]) -> Entry:
    text = " ".join([ours.text, *(f"[{number.accuracy:.3f}]" for number in beside)])
    marks = (*own, *([DAGGER] if any(reasons_of(number) for number in beside) else []))
    return Entry(text, is_bold=ours.is_bold, marks=marks)
