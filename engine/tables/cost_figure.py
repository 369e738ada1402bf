"""Accuracy against cost, a point a row, and the rows that no other beats at equal cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from engine.config.metrics import metrics
from engine.config.mistakes import ConfigError
from engine.report.figures.style import (
    BLUE,
    GREY,
    PALE,
    grid,
    legible,
    new_figure,
    shorten,
    styled,
)
from engine.tables.aggregate import PRIMARY, Block
from engine.tables.costs import MEASURES, pareto_front
from engine.tables.style import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_WIDTH, PANEL_HEIGHT, NAME_HEIGHT = 7.2, 3.4, 0.2
"""Inches."""
WIDE = 3.0
"""Costs that far apart, as a factor, are drawn on a logarithmic scale."""

BY_THE_MEANS = "by the means; differences may be noise"


class Point(NamedTuple):
    """A row: what it costs, how good it is, and how far its runs lie apart."""

    name: str
    cost: float
    value: float
    std: float


@styled
def draw(
    blocks: Sequence[Block],
    *,
    measure: str,
    metric: str = PRIMARY,
    title: str = "",
    style: Style | None = None,
) -> Figure:
    """Draw one panel a block: mean of a metric against mean cost, with one standard deviation.

    Rows on the Pareto front are filled, their names bold, and joined by a line that climbs in
    steps: at any cost it shows the best that is to be had for it. All others are hollow. The front
    goes by the means, whose differences may be noise: no test is behind it.

    Args:
        blocks: of one table.
        measure: of cost, one of :data:`engine.tables.costs.MEASURES`.
        metric: how good a row is.
        title: of the table; its name where empty.
        style: how its rows are called.

    Raises:
        ConfigError: no row knows that cost.
    """
    style = style or Style()
    points = [_points(block, measure=measure, metric=metric, style=style) for block in blocks]
    if not any(points):
        raise ConfigError(
            [f"--against {measure}: no row knows it; lines made before costs were kept do not"]
        )
    said = f"{title or blocks[0].table}: best at equal cost, rule {blocks[0].rule}"
    heights = [max(PANEL_HEIGHT, len(found) * NAME_HEIGHT + 0.8) for found in points]
    figure = new_figure(PANEL_WIDTH, sum(heights) + 0.6, title=said)
    figure.suptitle(f"{figure.get_suptitle()}\n{BY_THE_MEANS}", x=0.01, ha="left")
    panels = figure.subplots(len(blocks), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[
        :, 0
    ]
    for axes, block, found in zip(panels, blocks, points, strict=True):
        grid(axes, axis="both")
        axes.set_title(legible(block.setting))
        axes.set_xlabel(f"{MEASURES[measure].words}, mean over runs")
        axes.set_ylabel(legible(f"{metrics()[metric].heading}: mean and standard deviation"))
        _draw_points(axes, found, is_higher_better=metrics()[metric].better == "max")
    return figure


def _points(block: Block, *, measure: str, metric: str, style: Style) -> list[Point]:
    """Return the rows that have both numbers, the cheapest first."""
    found = []
    for row in block.rows:
        cost, summary = row.costs[measure], row.scores[metric].summary
        if cost is not None and summary is not None:
            name = shorten(style.label(row.method), limit=32)
            cost /= MEASURES[measure].unit
            found.append(Point(name, cost, summary.mean, summary.std or 0.0))
    return sorted(found, key=lambda point: point.cost)


def _draw_points(axes: Axes, points: Sequence[Point], *, is_higher_better: bool) -> None:
    if not points:
        axes.text(0.5, 0.5, "no row knows its cost", transform=axes.transAxes, ha="center")
        return
    sign = 1 if is_higher_better else -1
    costs = [point.cost for point in points]
    is_best = pareto_front(costs, [sign * point.value for point in points])
    if min(costs) > 0 and max(costs) / min(costs) > WIDE:
        axes.set_xscale("log")
    axes.margins(x=0.12, y=0.12)
    front = [point for point, is_one in zip(points, is_best, strict=True) if is_one]
    steps = [(p.cost, p.value) for p in front] + [(max(costs), front[-1].value)]
    axes.step(*zip(*steps, strict=True), where="post", color=GREY, linewidth=1.4, zorder=1)
    for point, is_one in zip(points, is_best, strict=True):
        axes.errorbar(
            point.cost,
            point.value,
            yerr=point.std,
            fmt="o",
            color=BLUE,
            markerfacecolor=BLUE if is_one else "white",
            elinewidth=0.8,
            markersize=6,
        )
    _name_points(axes, points, is_best)


def _name_points(axes: Axes, points: Sequence[Point], is_best: Sequence[bool]) -> None:
    """Write the names to the right of the panel, the best on top, each tied to its point."""
    low, high = axes.get_ylim()
    falling = sorted(zip(points, is_best, strict=True), key=lambda pair: -pair[0].value)
    least = (high - low) * min(NAME_HEIGHT / PANEL_HEIGHT, 1 / len(points))
    places = spread_out([point.value for point, _ in falling], least=least, low=low)
    axes.set_ylim(low, max(high, places[0]))
    for (point, is_one), place in zip(falling, places, strict=True):
        axes.annotate(
            legible(point.name),
            (point.cost, point.value),
            xytext=(1.04, place),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontweight="bold" if is_one else "normal",
            arrowprops={"arrowstyle": "-", "color": PALE, "shrinkB": 5, "relpos": (0, 0.5)},
            annotation_clip=False,
            zorder=0,
        )


def spread_out(values: Sequence[float], *, least: float, low: float) -> list[float]:
    """Move falling values apart to ``least`` from each other, none below ``low``.

    >>> spread_out([3.0, 2.0, 1.9], least=0.5, low=0.0)
    [3.0, 2.0, 1.5]
    >>> spread_out([0.2, 0.1], least=0.5, low=0.0)
    [0.5, 0.0]
    """
    places: list[float] = []
    for value in values:
        places.append(min(value, places[-1] - least) if places else value)
    for number in range(len(places) - 1, -1, -1):
        bottom = low if number == len(places) - 1 else places[number + 1] + least
        places[number] = max(places[number], bottom)
    return places
