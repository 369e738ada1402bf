"""The cells of a table as text, before they are Markdown, LaTeX or lines of a terminal."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from engine.config.mistakes import ConfigError
from engine.report.statistics import DASH, FEWEST_FOR_A_CLAIM, Difference, spread
from engine.tables import published
from engine.tables.aggregate import METRICS, PRIMARY, Block, Row, Score
from engine.tables.published import Published
from engine.tables.table_file import Published as Reference

DAGGER = "†"


@dataclass(frozen=True)
class Entry:
    """A cell: its text, whether it is bold, and the marks of the notes below the table."""

    text: str
    is_bold: bool = False
    marks: tuple[str, ...] = ()


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


def sheet_of(block: Block, references: Sequence[Reference] = ()) -> Sheet:
    """Lay out one block, with a column for each published table that has a number for it."""
    marks, notes = _marked(block.rows)
    beside = [column for ref in references if (column := _beside(block, ref))]
    rows = []
    for index, row in enumerate(block.rows):
        own = tuple(marks[text] for text in row.notes if text in marks)
        entries = [Entry(row.method, marks=own), Entry(_runs(row))]
        entries += _scores(row, usual_n=_usual_n(block.rows))
        if block.oracle_metric is not None:
            entries.append(Entry(_oracle(row)))
        for column in beside:
            entries.append(_published(column.numbers[index], row.scores["accuracy"]))
            reasons = [(DAGGER, text) for text in reasons_of(column.numbers[index])]
            notes += [reason for reason in reasons if reason not in notes]
        rows.append(tuple(entries))
    headings = ["method", "seeds × subsets", *_headings(block)]
    if block.oracle_metric is not None:
        headings.append(f"oracle {_heading(block.oracle_metric)} (gap)")
    headings += [f"overall in {column.name} (ours less theirs)" for column in beside]
    everywhere = [("", text) for text in (*block.notes, *reading(block))]
    return Sheet(
        caption=f"{block.title}, {block.setting}: test, rule {block.rule}",
        headings=tuple(headings),
        rows=tuple(rows),
        notes=(*notes, *everywhere),
    )


def _marked(rows: Sequence[Row]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """A mark for each note that rows have, and the notes; no mark for what all rows share."""
    count = Counter(text for row in rows for text in dict.fromkeys(row.notes))
    shared = [text for text, number in count.items() if number == len(rows) > 1]
    marks = dict(zip((text for text in count if text not in shared), letters(), strict=False))
    notes = [(mark, text) for text, mark in marks.items()]
    return marks, notes + [("", f"every row: {text}") for text in shared]


def apart(sheets: Sequence[Sheet]) -> tuple[list[Sheet], list[str]]:
    """The sheets without the notes that all of them share, and those notes, to be said once."""
    if len(sheets) < 2:
        return list(sheets), []
    first = [text for mark, text in sheets[0].notes if not mark]
    shared = [text for text in first if all(("", text) in sheet.notes for sheet in sheets)]
    return [
        replace(sheet, notes=tuple(n for n in sheet.notes if n[0] or n[1] not in shared))
        for sheet in sheets
    ], shared


# --- columns -------------------------------------------------------------------------------------


def _headings(block: Block) -> Iterator[str]:
    for metric in METRICS:
        group = metric.removesuffix("_accuracy")
        size = block.group_sizes.get(group)
        yield _heading(metric) + (f" ({size})" if size is not None else "")
        if metric == PRIMARY:
            yield f"difference to {block.baseline} [95 %]{_all_of(_usual_n(block.rows))}"


def _heading(metric: str) -> str:
    return METRICS.get(metric, metric.replace("_", " "))


def _usual_n(rows: Sequence[Row]) -> int | None:
    """How many independent differences most rows have."""
    found = Counter(d.n for row in rows if (d := row.scores[PRIMARY].difference) is not None)
    return found.most_common(1)[0][0] if found else None


def _all_of(n: int | None) -> str:
    return "" if n is None else f", n = {n}"


def _scores(row: Row, *, usual_n: int | None) -> Iterator[Entry]:
    for metric, score in row.scores.items():
        yield mean_entry(row, metric)
        if metric == PRIMARY:
            found = score.difference
            is_bold = found is not None and found.is_distinguishable
            yield Entry(_difference(found, usual_n=usual_n), is_bold=is_bold)


def mean_entry(row: Row, metric: str) -> Entry:
    """Mean and standard deviation, with n where not every run of the row defines the metric."""
    score = row.scores[metric]
    return Entry(spread(score.summary, expected=len(row.records)), is_bold=score.is_better)


def _difference(found: Difference | None, *, usual_n: int | None) -> str:
    if found is None:
        return DASH
    text = _signed(found.mean)
    if found.low is not None and found.high is not None:
        text += f" [{_signed(found.low)}, {_signed(found.high)}]"
    return text if found.n == usual_n else f"{text} (n = {found.n})"


def _signed(value: float) -> str:
    text = f"{value:+.3f}"
    return text.replace("-", "−") if float(text) else "0.000"


def _runs(row: Row) -> str:
    seeds, subsets, runs = row.num_seeds, len(row.subsets), len(row.records)
    if runs == seeds * subsets:
        return f"{seeds} × {subsets}"
    if runs == seeds == subsets:
        return f"{runs} pairs"
    return f"{runs} of {seeds} × {subsets}"


def _oracle(row: Row) -> str:
    if row.oracle is None:
        return DASH
    value, gap = row.oracle
    return f"{value:.3f} ({_signed(gap)})"


# --- published numbers ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A published table beside a block: its number for each row, where it has one."""

    name: str
    numbers: tuple[Published | None, ...]


def _beside(block: Block, reference: Reference) -> _Column | None:
    numbers = tuple(published_beside(row, reference, rule=block.rule) for row in block.rows)
    name = f"{reference.paper} {reference.table}"
    return _Column(name, numbers) if any(numbers) else None


def published_beside(row: Row, reference: Reference, *, rule: str) -> Published | None:
    """What the paper's table prints for a row; None where it has nothing or the row is not named.

    Raises:
        ConfigError: ``published.csv`` does not know the paper, the table, or its method.
    """
    method = reference.methods.get(row.method)
    if method is None or row.config is None:
        return None
    known = published.read()
    named = (known.paper == reference.paper) & (known.table_or_place == reference.table)
    if method not in set(known[named].method):
        raise ConfigError(
            [f"experiments/published.csv: no {method!r} in {reference.paper}, {reference.table}"]
        )
    return published.find(
        row.config,
        paper=reference.paper,
        table=reference.table,
        method=method,
        rule=rule,
        subsets=row.subsets,
    )


def _published(number: Published | None, ours: Score) -> Entry:
    if number is None:
        return Entry(DASH)
    text = f"{number.accuracy:.3f}"
    if ours.summary is not None:
        text += f" ({_signed(ours.summary.mean - number.accuracy)})"
    return Entry(text, marks=(DAGGER,) if reasons_of(number) else ())


def reasons_of(number: Published | None) -> list[str]:
    """Why the difference to a published number is not one of methods alone, in one sentence."""
    if number is None or not number.reasons:
        return []
    return [f"{number.place} ({number.source}): {number.reasons}"]


# --- notes ---------------------------------------------------------------------------------------


def reading(block: Block, metric: str = PRIMARY) -> Iterator[str]:
    """How to read the numbers."""
    differences = [row.scores[metric].difference for row in block.rows]
    compared = [found for found in differences if found is not None]
    yield (
        "mean ± standard deviation (n − 1) over runs; many: more than 100 training images, few: "
        "fewer than 20 (number of classes)"
    )
    if compared:
        yield f"{block.scope.text}"
    if not compared:
        return
    if max(found.n for found in compared) < FEWEST_FOR_A_CLAIM:
        yield f"nothing is bold: that takes n ≥ {FEWEST_FOR_A_CLAIM}"
        return
    rows = "1 row is" if len(compared) == 1 else f"{len(compared)} rows are"
    yield (
        f"bold: the difference to {block.baseline}, paired by seed and subset, has a 95 % interval "
        f"without 0, and n ≥ {FEWEST_FOR_A_CLAIM}; {rows} compared in each column, each at 95 % on "
        "its own, so that without any effect up to one in twenty would be bold"
    )


def letters() -> Iterator[str]:
    """The marks a to z, then aa, ab and so on."""
    yield from string.ascii_lowercase
    yield from (first + second for first in string.ascii_lowercase for second in _ALPHABET)


_ALPHABET: Iterable[str] = string.ascii_lowercase
