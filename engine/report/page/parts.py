"""What a page is made of beside the fixed parts of a run's: tables, points, intervals, lines."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

from engine.report.page.charts import RIGHT, TOP, Curves, Mark, Scale, Tick, across, upwards

LINE = 22  # height of a row of intervals
NAMES = 150  # width that the names of intervals take
LOG_SPREAD = 50  # from so large a factor on an axis is logarithmic
SEARCHED = 12  # rows from which on a table can be searched


@dataclass(frozen=True)
class Line:
    """A sentence."""

    kind: ClassVar[str] = "line"
    text: str


@dataclass(frozen=True)
class Table:
    """A table that sorts.

    Attributes:
        title: above it.
        columns: headings.
        rows: cells as text, one for each column.
        num_text: of the first columns, which hold words and stand left.
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_text: int = 1

    @property
    def can_be_searched(self) -> bool:
        """Whether it is long enough for that."""
        return len(self.rows) >= SEARCHED


@dataclass(frozen=True)
class Points:
    """Points on two axes.

    Attributes:
        title: of the chart.
        marks: what is drawn.
        x_ticks: of the horizontal axis.
        y_ticks: of the vertical one.
        x_title: below the horizontal axis.
        groups: names of the kinds of marks, each with shape and style.
    """

    kind: ClassVar[str] = "points"
    title: str
    marks: Sequence[Mark]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    x_title: str
    groups: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class Estimated(NamedTuple):
    """A number with its interval, for a chart of intervals."""

    name: str
    value: float
    low: float | None
    high: float | None
    says: str


class Row(NamedTuple):
    """A line of a chart of intervals, in its coordinates."""

    name: str
    y: float
    x: float
    low: float
    high: float
    says: str


@dataclass(frozen=True)
class Intervals:
    """Numbers below each other, each with its interval.

    Attributes:
        title: of the chart.
        rows: from top to bottom.
        ticks: of the values.
        zero: coordinate of 0, where it is on the axis.
        height: of the chart.
    """

    kind: ClassVar[str] = "intervals"
    title: str
    rows: Sequence[Row]
    ticks: Sequence[Tick]
    zero: float | None
    height: int


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn already, as a data URI."""

    kind: ClassVar[str] = "picture"
    title: str
    source: str


Part = Line | Table | Points | Intervals | Picture | Curves


@dataclass(frozen=True)
class Section:
    """Parts under a heading."""

    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Document:
    """A page of sections.

    Attributes:
        title: of the page.
        subtitle: in a few words.
        facts: term and text of what made the numbers.
        sections: in the order in which they are shown.
    """

    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]


def points(
    title: str,
    values: Sequence[tuple[float, float, str, str]],
    *,
    x_title: str,
    names: Mapping[float, str] | None = None,
    styles: Mapping[str, tuple[str, str]],
) -> Points | None:
    """Return a chart of points; None without any.

    Args:
        title: of the chart.
        values: x, y, the kind of each point, and what it says of itself.
        x_title: below the horizontal axis.
        names: of the values of x, where it is no number.
        styles: shape and class of each kind.
    """
    if not values:
        return None
    xs, ys = [value[0] for value in values], [value[1] for value in values]
    low, high = min(xs), max(xs)
    is_log = names is None and low > 0 and high / low >= LOG_SPREAD
    if is_log:
        x = across(low / 1.3, high * 1.3, is_log=True)
    else:
        room = 0.05 * (high - low) or 0.5
        x = across(low - room, high + room)
    y = _upwards(ys)
    marks = [
        Mark(x(at), y(value), styles[kind][1], styles[kind][0], says)
        for at, value, kind, says in values
    ]
    found = {value[2] for value in values}
    groups = {kind: style for kind, style in styles.items() if kind in found}
    ticks = x.ticks() if names is None else [Tick(x(at), name) for at, name in names.items()]
    return Points(title, marks, ticks, y.ticks(), x_title, groups if len(groups) > 1 else {})


def _upwards(values: Sequence[float]) -> Scale:
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.05
    return upwards(low - room, high + room)


def intervals(title: str, found: Sequence[Estimated]) -> Intervals | None:
    """Return a chart of numbers with their intervals; None without any."""
    if not found:
        return None
    ends = [end for row in found for end in (row.value, row.low, row.high) if end is not None]
    room = 0.05 * (max(ends) - min(ends)) or 0.5
    x = Scale(min(*ends, 0.0) - room, max(*ends, 0.0) + room, NAMES, RIGHT)
    rows = [
        Row(
            row.name,
            TOP + LINE * (number + 0.5),
            x(row.value),
            x(row.value if row.low is None else row.low),
            x(row.value if row.high is None else row.high),
            row.says,
        )
        for number, row in enumerate(found)
    ]
    return Intervals(title, rows, x.ticks(), x(0.0), TOP + LINE * len(rows) + 28)


def picture(file: Path) -> Picture:
    """Return a PNG file of the disk.

    Raises:
        OSError: it cannot be read.
    """
    content = base64.b64encode(file.read_bytes()).decode("ascii")
    return Picture(file.stem.replace("_", " "), f"data:image/png;base64,{content}")
