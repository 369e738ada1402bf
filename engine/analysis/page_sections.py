"""An analysis as sections of a page: the tables of the screen, and curves to hover over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table as RichTable

from engine.analysis.comparison_screen import ComparisonScreen
from engine.analysis.groups import LINES
from engine.analysis.run_screen import RunScreen
from engine.analysis.screen import Section as Found
from engine.config.messages import counted, one_line
from engine.report.page import charts, parts

SHOWN = 6
"""Curves that one chart can tell apart without colour."""
SECONDS = "training, s a run, first stages included"


class _Collected:
    """Keeps what a screen would print."""

    def __init__(self) -> None:
        self.parts: list[parts.Part] = []

    def say(self, line: str) -> None:
        """Keep one line."""
        self.parts.append(parts.Line(one_line(line)))

    def show(self, table: RichTable) -> None:
        """Keep a table."""
        columns = [str(column.header) for column in table.columns]
        rows = zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True)
        self.parts.append(parts.Table(str(table.title or ""), columns, list(rows)))


class _RunSections(_Collected, RunScreen):
    """The tables of one run."""


class _TableSections(_Collected, ComparisonScreen):
    """The tables of a table's methods."""


def sections_of_run(found: Found) -> list[parts.Section]:
    """Return the section of a run's page that an analysis adds."""
    collected = _RunSections()
    collected.run(found)
    # The page itself says on top of what the numbers are.
    content = [*_tau_curve(found["logit_adjustment"]), *collected.parts[3:]]
    return [parts.Section("After training, from the stored predictions", content)]


def _tau_curve(section: Found) -> Iterator[parts.Part]:
    is_chosen = section["chosen"] is not None
    values = section["val_curve"] if is_chosen else section["oracle_curve"]
    title = "Recall on validation" if is_chosen else "Recall on test: an oracle, no result"
    marked = section["chosen"]["tau"] if is_chosen else None
    chart = charts.curves_against(
        "tau",
        section["taus"],
        {name: values[name] for name in LINES},
        title=f"{title}, by the strength of logit adjustment",
        marked=marked,
    )
    if chart is not None:
        yield chart


def document_of_table(found: Found) -> parts.Document:
    """Return the page of a table: methods with intervals, curves and cost."""
    state = f"{found['finished']} of {found['planned']} runs are finished"
    sections = [
        parts.Section(setting["setting"], list(_setting(setting, found)))
        for setting in found["settings"]
    ]
    facts = [
        ("runs", state),
        ("rule", found["rule"]),
        ("baseline", found["baseline"]),
        ("choice", "what is chosen is so run by run on validation, and shown on test once"),
    ]
    return parts.Document(found["title"], found["table"], facts, sections)


def _setting(setting: Found, found: Found) -> Iterator[parts.Part]:
    rows, baseline = setting["rows"], found["baseline"]
    yield from _differences(rows, baseline=baseline)
    cost = _cost(rows)
    if cost is not None:
        yield cost
    yield from _curves(rows, baseline=baseline)
    collected = _TableSections()
    collected.setting(setting, baseline=baseline, alpha=found["alpha"])
    yield from collected.parts[1:]
    yield parts.Table(
        "Cost",
        ["method", "runs", SECONDS, "standard deviation"],
        [_seconds(row) for row in rows],
    )
    yield parts.Line(setting["scope"])


def _differences(rows: Sequence[Any], *, baseline: str) -> Iterator[parts.Part]:
    for way, words in (("balanced", "as it is"), ("balanced_chosen", "at the chosen tau")):
        estimates = []
        for row in rows:
            change = row["difference"].get(way)
            if change is not None:
                low, high = (
                    None if change[end] is None else 100 * change[end] for end in ("low", "high")
                )
                value = 100 * change["mean"]
                interval = "" if low is None else f" [{low:+.1f}, {high:+.1f}]"
                says = f"{row['method']}: {value:+.1f}{interval} points, n = {change['n']}"
                estimates.append(parts.Estimated(row["method"], value, low, high, says))
        title = f"Balanced accuracy, points above {baseline}, {words}"
        chart = parts.intervals(title, estimates)
        if chart is not None:
            yield chart


def _cost(rows: Sequence[Any]) -> parts.Points | None:
    values = []
    for row in rows:
        accuracy, seconds = row["values"]["balanced"], row["seconds"]
        if accuracy is not None and seconds is not None:
            at = (seconds["mean"], 100 * accuracy["mean"])
            says = f"{row['method']}: {at[1]:.1f} % in {at[0]:,.1f} s of training a run"
            values.append((*at, "method", says))
    return parts.points(
        "Balanced accuracy on test (%), as it is",
        values,
        x_title=SECONDS,
        styles={"method": ("circle", "many")},
    )


def _curves(rows: Sequence[Any], *, baseline: str) -> Iterator[parts.Part]:
    """Yield learning curves of the baseline and of the methods that end best."""
    known = [row for row in rows if row["curve"] is not None]
    if not known:
        return
    best = sorted(known, key=lambda row: (row["method"] != baseline, -row["curve"]["mean"][-1]))
    curves = {
        row["method"]: dict(zip(row["curve"]["epochs"], row["curve"]["mean"], strict=True))
        for row in best[:SHOWN]
    }
    epochs = sorted(set().union(*curves.values()))
    values = {method: [curve.get(e) for e in epochs] for method, curve in curves.items()}
    chart = charts.curves_against(
        "epoch", epochs, values, title="Balanced accuracy on validation, mean over runs"
    )
    if chart is not None:
        yield chart
    if len(best) > SHOWN:
        left = counted(len(best) - SHOWN, "method")
        yield parts.Line(f"Curves of the baseline and the {SHOWN - 1} that end best; {left} more.")


def _seconds(row: Found) -> list[str]:
    spent = row["seconds"]
    if spent is None:
        return [row["method"], str(row["n"]), "–", "–"]
    std = "–" if spent["std"] is None else f"{spent['std']:.1f}"
    return [row["method"], str(row["n"]), f"{spent['mean']:.1f}", std]
