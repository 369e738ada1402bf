"""The recall of every class: a row a method, a column a class."""

from __future__ import annotations

from collections.abc import Sequence

from engine.report.statistics import DASH, mean_and_std
from engine.tables.aggregate import Block, Row
from engine.tables.layout import Entry, Sheet, marked, marks_of
from engine.tables.style import Style

METRIC = "recall"


def per_class_sheet(block: Block, *, style: Style) -> Sheet:
    """Lay out the mean recall over runs of each class, with its training images in brackets."""
    counts = block.rows[0].records[0].class_counts
    columns = [
        _column([_recall(row, label, rule=block.rule) for row in block.rows], style)
        for label in range(len(counts))
    ]
    unit = " (%)" if style.is_percent else ""
    marks, of_rows = marked(block.rows)
    names = [Entry(style.label(row.method), marks=marks_of(row, marks)) for row in block.rows]
    notes = [f"mean recall{unit} over runs; in brackets: the class's training images"]
    if style.marks == "best":
        notes.append("bold: the best mean of a column, underlined: the second")
    return Sheet(
        caption=f"{block.title}, {block.setting}: test, recall of each class, rule {block.rule}",
        headings=("method", *(f"{label} ({count})" for label, count in enumerate(counts))),
        rows=tuple(zip(names, *columns, strict=True)),
        notes=(*of_rows, *(("", text) for text in (*notes, block.scope.text))),
    )


def _recall(row: Row, label: int, *, rule: str) -> float | None:
    found = [record.rules[rule].recall[label] for record in row.records if rule in record.rules]
    defined = [value for value in found if value is not None]
    return mean_and_std(defined).mean if defined else None


def _column(means: Sequence[float | None], style: Style) -> list[Entry]:
    texts = [DASH if mean is None else style.number(mean, METRIC) for mean in means]
    ranks = sorted({float(text) for text in texts if text != DASH}, reverse=True)
    if style.marks != "best":
        return [Entry(text) for text in texts]
    return [
        Entry(
            text,
            is_bold=text != DASH and float(text) in ranks[:1],
            is_underlined=text != DASH and float(text) in ranks[1:2],
        )
        for text in texts
    ]
