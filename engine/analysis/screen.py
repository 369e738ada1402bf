"""The screen of ``analyze.py``: 80 columns, and how numbers stand in its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.config.messages import one_line
from engine.report.statistics import DASH

WIDTH = 80
Section = Mapping[str, Any]


class Screen:
    """Prints lines and tables.

    Args:
        console: Where to; the standard output by default, 80 columns wide.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, width=WIDTH)

    def say(self, line: str) -> None:
        """Print one line, never folded: a path stays whole."""
        self.console.print(Text(one_line(line)), soft_wrap=True)

    def show(self, table: Table) -> None:
        """Print a table."""
        self.console.print(table)


def table_of(title: str, *columns: str) -> Table:
    """Return an empty table; the first column stands left, the others right."""
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(
            Text(name),
            justify="left" if number == 0 else "right",
            overflow="fold",
        )
    return table


def add_row(table: Table, *cells: str) -> None:
    """Add a row; markup in class names stays inert."""
    table.add_row(*(Text(one_line(cell)) for cell in cells))


def share(value: float | None) -> str:
    """Return a share in per cent; the last bits of a half never decide how it is rounded.

    >>> share(0.5695), share(0.5695 - 2e-16)
    ('57.0', '57.0')
    """
    return DASH if value is None else f"{round(100 * value, 9):.1f}"


def shares_of(values: Section, names: Sequence[str]) -> list[str]:
    """Return shares in per cent."""
    return [share(values[name]) for name in names]


def with_interval(found: Sequence[float]) -> str:
    """Return a difference of shares in points, with its interval."""
    value, low, high = (100 * number for number in found)
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def spread_of(found: Section | None, scale: float, form: str) -> str:
    """Return mean and standard deviation over runs."""
    if found is None:
        return DASH
    mean = form.format(scale * found["mean"])
    return mean if found["std"] is None else f"{mean} ± {form.format(scale * found['std'])}"


def difference_of(found: Section | None) -> str:
    """Return a paired difference over runs in points, with its interval."""
    if found is None:
        return DASH
    text = f"{100 * found['mean']:+.1f}"
    if found["low"] is None:
        return text
    return f"{text} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"
