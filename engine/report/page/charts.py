"""Charts of a page as numbers in the coordinates of an SVG; the templates draw them.

A chart is 360 wide, about the width of a phone, so that its letters keep their size there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from engine.report.figures.curves import PANELS
from engine.report.statistics import DASH
from engine.training.metrics.calibration import Reliability
from engine.training.summary import ClassResult

WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 44, 348, 12, 202  # of the area that the axes enclose
MOST_POINTS = 300  # of a curve; longer ones are thinned out, their last point stays
ROUND = ("circle", "square", "triangle")
MARKERS = dict(zip(("many", "medium", "few"), ROUND, strict=True))


class Tick(NamedTuple):
    """A mark on an axis: its coordinate and what is written there."""

    at: float
    label: str


@dataclass(frozen=True)
class Scale:
    """From values to coordinates along one axis.

    Args:
        low: value at ``first``.
        high: value at ``last``.
        first: coordinate.
        last: coordinate.
        is_log: whether equal steps are equal factors.
    """

    low: float
    high: float
    first: float
    last: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value, to a tenth."""
        low, high, value = (self._linear(v) for v in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.first + share * (self.last - self.first), 1)

    def ticks(self, *, whole: bool = False) -> list[Tick]:
        """Return about five round values inside the range; ``whole`` numbers alone if asked."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        locator = LogLocator() if self.is_log else MaxNLocator(nbins=5, integer=whole)
        found = locator.tick_values(self.low, self.high)
        inside = [float(v) for v in found if self.low <= v <= self.high]
        return [Tick(self(v), _short(v)) for v in inside]

    def _linear(self, value: float) -> float:
        return math.log10(value) if self.is_log else value


def _short(value: float) -> str:
    """Return a round number in few letters.

    >>> _short(0.05), _short(0.00025)
    ('0.05', '2.5e-4')
    """
    if value == 0 or abs(value) >= 0.001:
        return f"{value:.12g}"
    mantissa, _, exponent = f"{value:.6e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def across(low: float, high: float, *, is_log: bool = False) -> Scale:
    """Return the horizontal axis of a chart."""
    return Scale(low, high, LEFT, RIGHT, is_log)


def upwards(low: float, high: float, *, is_log: bool = False) -> Scale:
    """Return the vertical axis of a chart."""
    return Scale(low, high, BOTTOM, TOP, is_log)


class Curve(NamedTuple):
    """One line of a chart: its name, which of the styles it has, its path, its values as text."""

    name: str
    style: int
    path: str
    values: list[str]


@dataclass(frozen=True)
class Curves:
    """Curves over the epochs, or over another number.

    Attributes:
        title: of the chart.
        epochs: (E,) numbers.
        xs: (E,) coordinates of the epochs.
        curves: at least one.
        x_ticks: of the epochs.
        y_ticks: of the values.
        marked: coordinate of the epoch that the headline's rule took, or None.
        x_name: what stands in the place of epochs.
    """

    kind: ClassVar[str] = "curves"
    title: str
    epochs: list[int] | list[float]
    xs: list[float]
    curves: list[Curve]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marked: float | None
    x_name: str = "epoch"

    @property
    def _labels(self) -> list[str]:
        return [f"{self.x_name} {number:.6g}" for number in self.epochs]

    @property
    def data(self) -> dict[str, Any]:
        """Return what the page needs to show values under the pointer."""
        named = [{"name": curve.name, "values": curve.values} for curve in self.curves]
        return {"xs": self.xs, "labels": self._labels, "curves": named}


def curves_against(
    x_name: str,
    at: Sequence[float],
    values: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    marked: float | None = None,
) -> Curves | None:
    """Return a chart of up to six curves over the same numbers; None where none has a value.

    Args:
        x_name: of the numbers.
        at: (E,) in increasing order.
        values: (E,) by the name of a curve.
        title: of the chart.
        marked: number at which a vertical line stands.
    """
    found = {name: row for name, row in values.items() if any(v is not None for v in row)}
    every = [v for row in found.values() for v in row if v is not None]
    if not every:
        return None
    x = across(at[0], at[-1])
    room = 0.05 * (max(every) - min(every)) or 0.05
    y = upwards(min(every) - room, max(every) + room)
    xs = [x(number) for number in at]
    curves = [
        Curve(
            name,
            style,
            _path(xs, [None if v is None else y(v) for v in row]),
            [DASH if v is None else f"{v:.4g}" for v in row],
        )
        for style, (name, row) in enumerate(found.items())
    ]
    line = None if marked is None else x(marked)
    is_whole = all(float(number).is_integer() for number in at)
    ticks = x.ticks(whole=is_whole)
    return Curves(title, list(at), xs, curves, ticks, y.ticks(), line, x_name)


def learning_curves(rows: Sequence[Mapping[str, Any]], *, epoch: int) -> list[Curves]:
    """Return a chart for each panel of the figures that the rows have values for.

    Args:
        rows: lines of metrics.jsonl.
        epoch: that the headline's rule took.
    """
    present = {key for row in rows for key, value in row.items() if value is not None}
    thinned = _thinned(rows)
    panels = ((title, [key for key in keys if key in present]) for title, keys in PANELS.items())
    return [_curves(title, keys, thinned, epoch=epoch) for title, keys in panels if keys]


def _thinned(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    step = -(-len(rows) // MOST_POINTS)
    kept = list(rows[::step])
    return kept if not rows or kept[-1] is rows[-1] else [*kept, rows[-1]]


def _curves(
    title: str, keys: Sequence[str], rows: Sequence[Mapping[str, Any]], *, epoch: int
) -> Curves:
    found = {key: [row.get(key) for row in rows] for key in keys}
    every = [value for values in found.values() for value in values if value is not None]
    low, high = min(every), max(every)
    # A rate that falls in steps shows only its first on a linear axis.
    is_log = title == "Learning rate" and low > 0 and high / low >= 50
    if "accuracy" in title.lower():
        low, high = 0.0, 1.0
    elif not is_log:
        low, high = min(low, 0.0), high or 1.0
    epochs = [row["epoch"] for row in rows]
    x, y = across(epochs[0], epochs[-1]), upwards(low, high, is_log=is_log)
    xs = [x(number) for number in epochs]
    curves = [
        Curve(
            key,
            style,
            _path(xs, [None if v is None else y(v) for v in values]),
            [DASH if v is None else f"{v:.4g}" for v in values],
        )
        for style, (key, values) in enumerate(found.items())
    ]
    marked = x(epoch) if epochs[0] < epochs[-1] and epoch <= epochs[-1] else None
    return Curves(title, epochs, xs, curves, x.ticks(whole=True), y.ticks(), marked)


def _path(xs: Sequence[float], ys: Sequence[float | None]) -> str:
    """Return the ``d`` of a path; a missing value is a gap, a point alone a short line."""
    words = []
    for number, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if y is None:
            continue
        follows = number > 0 and ys[number - 1] is not None
        leads = number + 1 < len(ys) and ys[number + 1] is not None
        if follows:
            words.append(f"L{x} {y}")
        else:
            words.append(f"M{x} {y}" if leads else f"M{round(x - 4, 1)} {y}h8")
    return "".join(words)


class Mark(NamedTuple):
    """A class in the chart of recalls: where, in which group, and what it says of itself."""

    x: float
    y: float
    group: str
    shape: str
    says: str


@dataclass(frozen=True)
class Recalls:
    """Recall of each class against its training images, on a logarithmic axis.

    Attributes:
        marks: one a class.
        groups: the groups that occur, with the shape of their marks.
        x_ticks: of the training images.
        y_ticks: of the recall.
    """

    marks: list[Mark]
    groups: dict[str, str]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def recall_by_count(classes: Sequence[ClassResult]) -> Recalls | None:
    """Return the chart, or None where no class has both training and test images."""
    shown = [c for c in classes if c.train_images > 0 and c.recall is not None]
    if not shown:
        return None
    counts = [c.train_images for c in shown]
    x = across(max(min(counts) * 0.8, 0.8), max(counts) * 1.25, is_log=True)
    y = upwards(0.0, 1.0)
    marks = [
        Mark(x(c.train_images), y(c.recall or 0.0), c.group or "", _shape(c), _said(c))
        for c in shown
    ]
    there = {mark.group for mark in marks}
    groups = {group: shape for group, shape in MARKERS.items() if group in there}
    return Recalls(marks, groups, x.ticks(), y.ticks())


def _shape(row: ClassResult) -> str:
    return MARKERS.get(row.group or "", ROUND[0])


def _said(row: ClassResult) -> str:
    images = f"{row.train_images:,} training, {row.support:,} test images"
    return f"{row.name}: recall {row.recall:.3f}, {images}"


class Bar(NamedTuple):
    """A bin of confidences: where its bar is, where its confidence lies, and what it says."""

    x: float
    width: float
    accuracy: float
    confidence: float
    says: str


@dataclass(frozen=True)
class Calibration:
    """Accuracy against confidence.

    Attributes:
        bars: of the bins that hold images.
        ece: expected calibration error.
        ticks: from 0 to 1, along the horizontal axis.
        y_ticks: from 0 to 1, along the vertical axis.
    """

    bars: list[Bar]
    ece: float
    ticks: list[Tick]
    y_ticks: list[Tick]


def calibration(bins: Reliability) -> Calibration:
    """Return the reliability diagram of Guo et al. (2017), figure 1."""
    x, y = across(0.0, 1.0), upwards(0.0, 1.0)
    bars = []
    for number in np.flatnonzero(bins.counts).tolist():
        first, last = bins.edges[number], bins.edges[number + 1]
        accuracy, confidence = bins.accuracy[number], bins.confidence[number]
        says = (
            f"confidence {first:.2f} to {last:.2f}: accuracy {accuracy:.3f}, mean confidence "
            f"{confidence:.3f}, {bins.counts[number]:,} images"
        )
        width = round(x(last) - x(first), 1)
        bars.append(Bar(x(first), width, y(accuracy), y(confidence), says))
    return Calibration(bars, bins.ece, x.ticks(), y.ticks())
