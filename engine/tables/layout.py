"""The cells of a table as text, before they are Markdown, LaTeX or lines of a terminal."""

from __future__ import annotations

import itertools
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.config.metrics import metrics
from engine.report.statistics import DASH, FEWEST_FOR_A_CLAIM, INTERVAL, Difference, spread
from engine.tables.aggregate import HEADINGS, Block, Row, Score, are_better
from engine.tables.beside import Beside, beside_of, reasons_of
from engine.tables.costs import MEASURES, USUAL, shown
from engine.tables.published import Published
from engine.tables.style import NO_SHARE, Style
from engine.tables.table_file import Reference
from engine.training.metrics import groups

DAGGER = "†"
COSTS = (
    "cost: means over runs, of training alone, earlier stages and teachers included; forward and "
    "backward: passes of one image through the network, without those of a head on cached features "
    "and without the pass that made the features; memory: at the peak; seconds go by the machine "
    "and by what else it does, the counts do not"
)


@dataclass(frozen=True)
class Entry:
    """A cell: its text, how it stands out, and the marks of the notes below the table."""

    text: str
    is_bold: bool = False
    marks: tuple[str, ...] = ()
    is_underlined: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table to be printed.

    Attributes:
        notes: (mark, sentence); no mark for what holds for all rows.
    """

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    notes: tuple[tuple[str, str], ...]


def sheet_of(
    block: Block, references: Sequence[Reference] = (), *, style: Style | None = None
) -> Sheet:
    """Lay out one block, with a column for each published table that has a number for it."""
    style = style or Style()
    marks, notes = marked(block.rows)
    beside = beside_of(block, references, metrics=style.columns)
    columns = list(_metric_columns(block, style))
    if block.oracle_metric is not None:
        heading = f"oracle {_heading(block.oracle_metric)} (gap)"
        columns.append(Column(heading, [_oracle(row, style) for row in block.rows]))
    columns += [_published_column(block, found, style) for found in beside]
    columns += list(_cost_columns(block)) if style.has_costs else []
    reasons = [text for found in beside for n in found.numbers for text in reasons_of(n)]
    notes += [(DAGGER, text) for text in dict.fromkeys(reasons)]
    names = [Entry(style.label(row.method), marks=marks_of(row, marks)) for row in block.rows]
    runs = [Entry(_runs(row)) for row in block.rows]
    every = [Column("method", names), Column("seeds × subsets", runs), *columns]
    everywhere = [("", text) for text in (*block.notes, *reading(block, style=style))]
    everywhere += [("", COSTS)] if style.has_costs else []
    return Sheet(
        caption=f"{block.title}, {block.setting}: test, rule {block.rule}",
        headings=tuple(column.heading for column in every),
        rows=tuple(zip(*(column.entries for column in every), strict=True)),
        notes=(*notes, *everywhere),
    )


@dataclass(frozen=True)
class Column:
    """A heading, and an entry for each row."""

    heading: str
    entries: Sequence[Entry]


def marked(rows: Sequence[Row]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Assign a mark to each note that rows have, except notes that all rows share.

    Returns:
        The mark of each note, and the notes as :class:`Sheet` has them.
    """
    count = Counter(text for row in rows for text in dict.fromkeys(row.notes))
    shared = [text for text, number in count.items() if number == len(rows) > 1]
    marks = dict(zip((text for text in count if text not in shared), letters(), strict=False))
    notes = [(mark, text) for text, mark in marks.items()]
    return marks, notes + [("", f"every row: {text}") for text in shared]


def marks_of(row: Row, marks: Mapping[str, str]) -> tuple[str, ...]:
    """Return the marks of a row's notes, those that all rows share aside."""
    return tuple(marks[text] for text in row.notes if text in marks)


def apart(sheets: Sequence[Sheet]) -> tuple[list[Sheet], list[str]]:
    """Separate the notes that all sheets share, so that each is printed once."""
    if len(sheets) < 2:
        return list(sheets), []
    first = [text for mark, text in sheets[0].notes if not mark]
    shared = [text for text in first if all(("", text) in sheet.notes for sheet in sheets)]
    return [
        replace(sheet, notes=tuple(n for n in sheet.notes if n[0] or n[1] not in shared))
        for sheet in sheets
    ], shared


# --- columns -------------------------------------------------------------------------------------


def _metric_columns(block: Block, style: Style) -> Iterator[Column]:
    """Yield means and standard deviations; behind the first the differences to the baseline.

    Of the usual columns those without any number are left out.
    """
    is_chosen = style.columns != Style.columns
    for number, metric in enumerate(style.columns):
        is_empty = all(row.scores[metric].summary is None for row in block.rows)
        # A metric that came after these runs, say. The first column is what the table is about.
        if is_empty and number and not is_chosen:
            continue
        size = block.group_sizes.get(metric.removesuffix("_accuracy"))
        unit = " (%)" if style.is_percent and metric not in NO_SHARE else ""
        heading = _heading(metric) + unit + (f" ({size})" if size is not None else "")
        entries = mean_entries(block.rows, metric, style=style)
        yield Column(heading, marked_best(entries, block.rows, metric, style=style))
        if number == 0:
            yield _difference_column(block, metric, style)


def _difference_column(block: Block, metric: str, style: Style) -> Column:
    differences = [row.scores[metric].difference for row in block.rows]
    count = Counter(found.n for found in differences if found is not None)
    usual = count.most_common(1)[0][0] if count else None
    entries = [
        Entry(
            _difference(found, metric, usual_n=usual, style=style),
            is_bold=style.marks == "difference" and found is not None and found.is_distinguishable,
        )
        for found in differences
    ]
    of_all = "" if usual is None else f", n = {usual}"
    return Column(f"difference to {style.label(block.baseline)} [95 %]{of_all}", entries)


def _cost_columns(block: Block) -> Iterator[Column]:
    """Yield the measures of cost that a row knows, and the usual ones whether known or not."""
    for name, measure in MEASURES.items():
        known = [row.costs[name] for row in block.rows]
        if name in USUAL or any(value is not None for value in known):
            yield Column(measure.heading, [Entry(shown(value, name)) for value in known])


def _heading(metric: str) -> str:
    return HEADINGS.get(metric, metric.replace("_", " "))


def mean_entries(rows: Sequence[Row | None], metric: str, *, style: Style) -> list[Entry]:
    """Return a column of means and standard deviations; a dash for a row that is not there.

    They have n where not every run of the row has the metric.
    """
    there = [row for row in rows if row is not None]
    scores = [row.scores[metric] for row in there]
    is_bold = are_better(scores) if style.marks == "difference" else [False] * len(scores)
    entries = iter(
        [
            Entry(_spread(row, metric, style=style), is_bold=is_one)
            for row, is_one in zip(there, is_bold, strict=True)
        ]
    )
    return [Entry(DASH) if row is None else next(entries) for row in rows]


def _spread(row: Row, metric: str, *, style: Style) -> str:
    return spread(
        row.scores[metric].summary,
        number=lambda value: style.number(value, metric),
        expected=len(row.records),
    )


def marked_best(
    entries: Sequence[Entry], rows: Sequence[Row | None], metric: str, *, style: Style
) -> list[Entry]:
    """Return a column with its best mean bold and its second underlined, where that is asked for.

    Means that are printed alike are alike: all of them are marked.
    """
    if style.marks != "best":
        return list(entries)
    summaries = [row.scores[metric].summary if row is not None else None for row in rows]
    shown = [None if s is None else float(style.number(s.mean, metric)) for s in summaries]
    is_higher_better = metrics()[metric].better == "max"
    ranks = sorted({v for v in shown if v is not None}, reverse=is_higher_better)
    return [
        replace(entry, is_bold=value in ranks[:1], is_underlined=value in ranks[1:2])
        for entry, value in zip(entries, shown, strict=True)
    ]


def _difference(found: Difference | None, metric: str, *, usual_n: int | None, style: Style) -> str:
    if found is None:
        return DASH
    text = style.signed(found.mean, metric)
    if found.low is not None and found.high is not None:
        text += f" [{style.signed(found.low, metric)}, {style.signed(found.high, metric)}]"
    return text if found.n == usual_n else f"{text} (n = {found.n})"


def _runs(row: Row) -> str:
    seeds, subsets, runs = row.num_seeds, row.num_splits, len(row.records)
    if runs >= seeds * subsets:  # more where the data give several subset seeds one split
        return f"{seeds} × {subsets}"
    if runs == seeds == subsets:
        return f"{runs} pairs"
    return f"{runs} of {seeds} × {subsets}"


def _oracle(row: Row, style: Style) -> Entry:
    metric = next((run.oracle.metric for run in row.records if run.oracle), None)
    if row.oracle is None or metric is None:
        return Entry(DASH)
    value, gap = row.oracle
    return Entry(f"{style.number(value, metric)} ({style.signed(gap, metric)})")


def _published_column(block: Block, found: Beside, style: Style) -> Column:
    entries = [
        _published(number, row.scores[found.metric], found.metric, style)
        for number, row in zip(found.numbers, block.rows, strict=True)
    ]
    return Column(f"{_heading(found.metric)} in {found.name} (ours less theirs)", entries)


def _published(number: Published | None, ours: Score, metric: str, style: Style) -> Entry:
    if number is None:
        return Entry(DASH)
    text = style.number(number.accuracy, metric)
    if ours.summary is not None:
        text += f" ({style.signed(ours.summary.mean - number.accuracy, metric)})"
    return Entry(text, marks=(DAGGER,) if reasons_of(number) else ())


# --- notes ---------------------------------------------------------------------------------------


def reading(block: Block, metric: str | None = None, *, style: Style) -> Iterator[str]:
    """Yield how to read the numbers.

    Args:
        block: the rows.
        metric: whose differences are compared; None for the first column.
        style: how they are shown.
    """
    differences = [row.scores[metric or style.columns[0]].difference for row in block.rows]
    compared = [found for found in differences if found is not None]
    no_share = [_heading(m) for m in style.columns if m in NO_SHARE and metric is None]
    unit = f"; {' and '.join(no_share)} not in percent" if style.is_percent and no_share else ""
    has_other_groups = any(note.endswith(groups.KEYS) for row in block.rows for note in row.notes)
    unless = ", unless a note says otherwise" if has_other_groups else ""
    yield (
        "mean ± standard deviation (n − 1) over runs; many: more than 100 training images, few: "
        f"fewer than 20{unless} (number of classes){unit}"
    )
    if compared:
        yield f"{block.scope.text}"
    if metric is None and any(found.low is not None for found in compared):
        yield f"[95 %]: {INTERVAL}"
    if style.marks == "best":
        yield (
            "bold: the best mean of a column, underlined: the second; neither says that the "
            "difference is distinguishable"
        )
        return
    if not compared:
        return
    if max(found.n for found in compared) < FEWEST_FOR_A_CLAIM:
        yield f"nothing is bold: that takes n ≥ {FEWEST_FOR_A_CLAIM}"
        return
    rows = "1 row is" if len(compared) == 1 else f"{len(compared)} rows are"
    yield (
        f"bold: the difference to {style.label(block.baseline)}, paired by seed and subset, has a "
        f"95 % interval without 0, and n ≥ {FEWEST_FOR_A_CLAIM}; {rows} compared in each column, "
        "each at 95 % on its own, so that without any effect up to one in twenty would be bold"
    )


def letters() -> Iterator[str]:
    """Yield the marks a to z, then aa, ab and so on, then aaa; there is always another."""
    for length in itertools.count(1):
        for mark in itertools.product(string.ascii_lowercase, repeat=length):
            yield "".join(mark)
