"""The closing table of a search, for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from engine.config.messages import one_line, shown
from engine.report.statistics import DASH, spread
from engine.tuning.confirm.confirm import Candidate
from engine.tuning.confirm.confirmed_rows import Row, chosen

VERDICT = "verdict"


def headings(table: Sequence[Row]) -> tuple[str, ...]:
    """Of the columns that :func:`cells` fills."""
    minus = f"test, minus {table[0].baseline}"
    return ("setting", "search", "validation", "test", "n", minus, VERDICT)


def described(candidate: Candidate) -> str:
    """A setting's name and what it sets, as ``key=value`` words."""
    words = [f"{key}={_value(value)}" for key, value in candidate.params.items()]
    return f"{candidate.name}: {' '.join(words)}" if words else candidate.name


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def cells(row: Row, *, digits: int = 4) -> list[str]:
    """A row's texts, under :func:`headings`."""
    difference = DASH
    if row.difference is not None:
        difference = f"{row.difference.mean:+.{digits}f}"
        if row.difference.low is not None and row.difference.high is not None:
            low, high = row.difference.low, row.difference.high
            difference += f" [{low:+.{digits}f}, {high:+.{digits}f}]"
    return [
        described(row.candidate),
        DASH if row.searched is None else f"{row.searched:.{digits}f}",
        spread(row.val, number=f"{{:.{digits}f}}".format),
        spread(row.test, number=f"{{:.{digits}f}}".format),
        str(row.test.n if row.test is not None else 0) + _lacking(row),
        difference,
        row.verdict,
    ]


def _lacking(row: Row) -> str:
    parts = {"diverged": row.diverged, "to come": row.missing}
    told = ", ".join(f"{number} {what}" for what, number in parts.items() if number)
    return f" ({told})" if told else ""


def screen_table(table: Sequence[Row], *, title: str) -> Table:
    """For the terminal, narrow enough for 80 columns; the chosen setting is marked.

    What settings set, and their verdicts, are in the lines of :func:`verdicts`.
    """
    best = chosen(table)
    shown_as = Table(
        box=SIMPLE_HEAD, title_justify="left", title=Text(one_line(title)), padding=(0, 1, 0, 0)
    )
    for heading in headings(table)[:-1]:
        shown_as.add_column(heading, justify="left" if heading == "setting" else "right")
    for row in table:
        mark = "* " if row is best else "  "
        texts = [mark + row.candidate.name, *cells(row, digits=3)[1:-1]]
        shown_as.add_row(*(Text(one_line(text)) for text in texts))
    return shown_as


def verdicts(table: Sequence[Row]) -> list[str]:
    """One line a setting but the one that all are compared with: what it sets, and the verdict."""
    return [f"{described(row.candidate)}: {row.verdict}" for row in table[1:]]


def explanation(table: Sequence[Row], *, seeds: Sequence[int]) -> list[str]:
    """What the table shows, in sentences."""
    metric, config, lines = table[0].objective.metric, table[0].candidate.config, []
    if (best := chosen(table)) is not None:
        lines.append(
            f"* chosen: {best.candidate.name}, the best confirmed mean of {metric} on validation; "
            "test has no say in it"
        )
    else:
        lines.append("nothing is chosen: every setting lacks a run")
    if any(row.missing for row in table):
        lines.append("the confirm stage is not complete; run the same command to complete it")
    lines.append(
        f"mean ± std over the seeds {_seeds(seeds)}, none of which the search used, by rule val; "
        "test was predicted after training, once a run; all on one training subset "
        f"(data.imbalance.seed={config.data.imbalance.seed})"
    )
    lines.append(
        "in brackets: 95 % interval of the paired difference, each by itself; "
        "the column search is the best of many noisy values and therefore too good"
    )
    return lines


def _seeds(seeds: Sequence[int]) -> str:
    is_range = list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return (
        f"{seeds[0]} to {seeds[-1]}" if is_range and len(seeds) > 2 else ", ".join(map(str, seeds))
    )


def markdown(tables: Sequence[Sequence[Row]], *, title: str, seeds: Sequence[int]) -> str:
    """The tables, one a metric, with their explanation."""
    lines = [f"# {one_line(title)}", ""]
    for table in tables:
        best = chosen(table)
        lines += [f"## {table[0].objective.metric}", ""]
        names = headings(table)
        lines += [_markdown_row(names), _markdown_row(["---"] * len(names))]
        for row in table:
            first, *others = cells(row)
            lines.append(_markdown_row([f"**{first}**" if row is best else first, *others]))
        lines += ["", *(f"{line}." for line in explanation(table, seeds=seeds)), ""]
    return "\n".join(lines)


def _markdown_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(one_line(text).replace("|", r"\|") for text in texts) + " |"


def csv_text(tables: Sequence[Sequence[Row]]) -> str:
    """Every row of the tables with full precision; empty where undefined."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["metric", "setting", "trial", "params", "is_chosen", "search"]
        + [f"{split}_{part}" for split in ("val", "test") for part in ("mean", "std", "n")]
        + [
            "difference",
            "difference_low",
            "difference_high",
            "pairs",
            "diverged",
            "missing",
            "verdict",
        ]
    )
    for table in tables:
        best = chosen(table)
        for row in table:
            words = " ".join(f"{k}={shown(v)}" for k, v in row.candidate.params.items())
            difference = row.difference
            writer.writerow(
                [row.objective.metric, row.candidate.name, row.candidate.trial, words]
                + [row is best, row.searched]
                + [*(row.val or (None, None, 0)), *(row.test or (None, None, 0))]
                + (
                    [None, None, None, 0]
                    if difference is None
                    else [difference.mean, difference.low, difference.high, difference.n]
                )
                + [row.diverged, row.missing, row.verdict]
            )
    return file.getvalue()
