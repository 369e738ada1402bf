"""The closing tables of a search: settings on fresh seeds, and the front of several metrics."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from engine.config.messages import one_line, shown
from engine.report.statistics import DASH, INTERVAL, spread
from engine.tuning.confirm.candidates import DEFAULT, Candidate
from engine.tuning.confirm.confirmed_rows import Row, chosen
from engine.tuning.study.trials import Objective, complete, front

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

VERDICT = "verdict"


def headings(table: Sequence[Row]) -> tuple[str, ...]:
    """Return the headings of the columns that :func:`cells` fills."""
    minus = f"test, minus {table[0].baseline}"
    return ("setting", "search", "validation", "test", "n", minus, VERDICT)


def described(candidate: Candidate) -> str:
    """Return a setting's name and what it sets, as ``key=value`` words."""
    words = words_of(candidate.params)
    return f"{candidate.name}: {words}" if words else candidate.name


def words_of(params: Mapping[str, Any]) -> str:
    """Return what is set as ``key=value`` words, rounded for reading."""
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={shown(value)}"
        for key, value in params.items()
    )


def cells(row: Row, *, digits: int = 4) -> list[str]:
    """Return a row's texts, under :func:`headings`."""
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
    """Return the table for 80 columns of a terminal; the chosen setting is marked.

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
    """Return one line a setting but the baseline: what it sets, and the verdict."""
    return [f"{described(row.candidate)}: {row.verdict}" for row in table[1:]]


def explanation(table: Sequence[Row], *, seeds: Sequence[int]) -> list[str]:
    """Return what the table shows, in sentences."""
    metric, config, lines = table[0].objective.metric, table[0].candidate.config, []
    if (best := chosen(table)) is not None:
        lines.append(
            f"* chosen: {best.candidate.name}, the best confirmed mean of {metric} on validation; "
            "test has no say in it"
        )
    else:
        lines.append("nothing is chosen: every setting lacks a run")
    if table[0].candidate.name == DEFAULT:
        lines.append(
            f"default = {config.loss.name}, {config.model.name}, {config.data.name}: the config of "
            "the command line, without what the search file sets"
        )
    if any(row.missing for row in table):
        lines.append("the confirm stage is not complete; run the same command to complete it")
    lines.append(
        f"mean ± std over the seeds {_seeds(seeds)}, none of which the search used, by rule val; "
        "test was predicted after training, once a run; all on one training subset "
        f"(data.imbalance.seed={config.data.imbalance.seed})"
    )
    search = "the column search is the best of many noisy values and therefore too good"
    if any(row.difference is not None and row.difference.low is not None for row in table):
        lines.append(
            f"in brackets: 95 % interval of the paired difference, each by itself; {INTERVAL}"
        )
    return [*lines, search]


def _seeds(seeds: Sequence[int]) -> str:
    is_range = list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return (
        f"{seeds[0]} to {seeds[-1]}" if is_range and len(seeds) > 2 else ", ".join(map(str, seeds))
    )


def markdown(tables: Sequence[Sequence[Row]], *, title: str, seeds: Sequence[int]) -> str:
    """Return the tables as Markdown, one a metric, with their explanation."""
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
    """Return every row of the tables as CSV with full precision; empty where undefined."""
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


# --- the Pareto front of several metrics ----------------------------------------------------------


def on_front(trials: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> list[FrozenTrial]:
    """Return the trials that no other one beats in every metric at once, by the first metric."""
    numbers = set(front(trials, objectives))
    found = [trial for trial in complete(trials) if trial.number in numbers]
    return sorted(found, key=lambda trial: -objectives[0].sign * trial.values[0])


def front_table(
    found: Sequence[FrozenTrial], objectives: Sequence[Objective], *, title: str
) -> Table:
    """Return the front for the terminal: number, values and what was set."""
    table = Table(box=SIMPLE_HEAD, title_justify="left", title=Text(one_line(title)))
    table.add_column("trial", justify="right")
    for objective in objectives:
        table.add_column(objective.metric, justify="right")
    table.add_column("sets")
    for trial in found:
        values = [f"{value:.4f}" for value in trial.values]
        table.add_row(str(trial.number), *values, Text(one_line(words_of(trial.params))))
    return table


def front_csv(found: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> str:
    """Return the front with full precision, a column a key; empty where a trial has no such key."""
    keys = sorted({key for trial in found for key in trial.params})
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["trial", *(objective.metric for objective in objectives), *keys])
    for trial in found:
        rows.writerow([trial.number, *trial.values, *(trial.params.get(key) for key in keys)])
    return text.getvalue()
