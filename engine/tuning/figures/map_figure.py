"""The map of two keys: where the good settings are, and how much of that is noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from engine.report.figures.style import INK, VERMILLION, new_figure, shorten, styled
from engine.tuning.figures.scale import Scale
from engine.tuning.figures.surface import Surface, surface
from engine.tuning.study.trials import Objective, complete, lost, pruned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

COLOURS = "cividis"  # the same to every kind of colour vision (Nuñez et al. 2018)
LEVELS = 9


@styled
def parameter_map(
    trials: Sequence[FrozenTrial],
    objective: Objective,
    *,
    x: str,
    y: str,
    title: str,
    index: int = 0,
    seed_std: float | None = None,
    marks: Mapping[str, Mapping[str, Any]] | None = None,
) -> Figure:
    """Draw every trial that sets both keys, over a smooth surface of the complete ones' values.

    The heavy line bounds what is within one standard deviation over seeds of the surface's best,
    where differences are noise; what is worse than that is hatched. Two numeric keys and five
    trials that do not lie on a line make a surface; else the points stand alone, and the title says
    why.

    Args:
        trials: of a study; at least one complete one sets both keys.
        objective: the one drawn, number ``index`` of each trial's values.
        x: key across.
        y: key upwards.
        title: first line of the figure.
        index: which of the values.
        seed_std: standard deviation of the metric over seeds; None where it was not measured.
        marks: settings (dotted keys to values) to be marked, by their legend entry.
    """
    shown = [t for t in complete(trials) if x in t.params and y in t.params]
    assert shown, f"no complete trial sets both {x} and {y}"
    across, up = Scale.of(x, shown), Scale.of(y, shown)
    places = np.array([(across.place(t.params[x]), up.place(t.params[y])) for t in shown])
    values = np.array([t.values[index] for t in shown])
    is_numeric = not across.choices and not up.choices
    found = None
    if is_numeric:
        unit = np.stack([across.share(places[:, 0]), up.share(places[:, 1])], axis=1)
        found = surface(unit, values, noise=seed_std)
    figure = new_figure(6.4, 5.0, title=f"{title} · {_trials(len(shown))}")
    axes = figure.subplots()
    if found is None:
        why = "too few trials, or all on one line" if is_numeric else "a key is a choice"
        axes.set_title(f"no surface: {why}", fontweight="normal")
    colours = _Colours.of(values, objective)
    if found is not None:
        _draw_surface(axes, found, across, up, colours=colours, objective=objective, std=seed_std)
    points = _draw_points(axes, places, values, colours=colours, scales=(across, up))
    bar = figure.colorbar(points, ax=axes, extend=colours.extend, pad=0.02)
    bar.set_label(objective.metric)
    bar.outline.set_visible(False)
    _draw_pruned(axes, trials, across, up)
    _mark(axes, marks or {}, across, up)
    _dress(axes, across, "x")
    _dress(axes, up, "y")
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower left", ncols=1, borderaxespad=0.2)
    return figure


def _trials(number: int) -> str:
    return "1 trial" if number == 1 else f"{number} trials"


@dataclass(frozen=True)
class _Colours:
    """Limits of the colour scale; far worse values than most share the last colour."""

    low: float
    high: float
    extend: str
    name: str

    @classmethod
    def of(cls, values: npt.NDArray[np.float64], objective: Objective) -> _Colours:
        signed = objective.sign * values
        best, middle = signed.max(), np.median(signed)
        worst = max(signed.min(), middle - 2 * (best - middle)) if best > middle else signed.min()
        is_cut = worst > signed.min()
        low, high = sorted((objective.sign * worst, objective.sign * best))
        if objective.sign > 0:
            return cls(low, high, "min" if is_cut else "neither", COLOURS)
        return cls(low, high, "max" if is_cut else "neither", f"{COLOURS}_r")


def _draw_surface(
    axes: Axes,
    found: Surface,
    across: Scale,
    up: Scale,
    *,
    colours: _Colours,
    objective: Objective,
    std: float | None,
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Polygon

    corners = np.stack([across.unshare(found.hull[:, 0]), up.unshare(found.hull[:, 1])], axis=1)
    hull = axes.add_patch(Polygon(corners, facecolor="none", edgecolor="none", linewidth=0))
    grid = (across.unshare(found.ticks), up.unshare(found.ticks), found.values)
    if colours.high > colours.low:
        levels = np.linspace(colours.low, colours.high, LEVELS + 1)
        fill = axes.contourf(*grid, levels=levels, cmap=colours.name, extend="both", zorder=0)
        fill.set_edgecolor("face")  # no hairlines between the bands in a PDF
        fill.set_clip_path(hull)
    noise, inside = found.noise if std is None else std, found.values[found.inside]
    best = objective.sign * (objective.sign * inside).max()
    level = best - objective.sign * noise
    what = (
        f"within one std over seeds ({noise:.3g}) of the surface's best, {best:.3g}"
        if std is not None
        else f"within the trials' scatter ({noise:.3g}) of the surface's best, {best:.3g}; "
        "noise over seeds was not measured"
    )
    if inside.min() < level < inside.max():
        for colour, width in (("white", 4.0), (INK, 2.0)):
            line = axes.contour(*grid, levels=[level], colors=[colour], linewidths=width, zorder=1)
            line.set_clip_path(hull)
        worst = found.values.min() if objective.sign > 0 else found.values.max()
        ends = sorted([level, worst - objective.sign])
        beyond = axes.contourf(*grid, levels=ends, colors="none", hatches=["///"], zorder=0.5)
        beyond.set(edgecolor=INK, linewidth=0)
        beyond.set_clip_path(hull)
        what += "; hatched: worse than that"
    else:
        what = f"everywhere {what}"
    axes.add_line(Line2D([], [], color=INK, linewidth=2.0, label=what))


def _draw_points(
    axes: Axes,
    places: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
    *,
    colours: _Colours,
    scales: tuple[Scale, Scale],
) -> PathCollection:
    shifted = places.copy()
    if all(scale.choices for scale in scales):
        # Several trials of one pair of choices would hide each other: spread them in order.
        for cell in np.unique(places, axis=0):
            inside = np.flatnonzero((places == cell).all(axis=1))
            shifted[inside, 0] += np.linspace(-0.3, 0.3, len(inside)) if len(inside) > 1 else 0
    return axes.scatter(
        shifted[:, 0], shifted[:, 1], c=values, cmap=colours.name, s=38, zorder=2,
        vmin=colours.low, vmax=colours.high, edgecolors="white", linewidths=1.0,
    )  # fmt: skip


def _draw_pruned(axes: Axes, trials: Sequence[FrozenTrial], across: Scale, up: Scale) -> None:
    """Mark the trials that were pruned or lost, which have no final value."""
    keys = {across.key, up.key}
    ended = [t for t in (*pruned(trials), *lost(trials)) if keys <= t.params.keys()]
    if ended:
        axes.plot(
            [across.place(t.params[across.key]) for t in ended],
            [up.place(t.params[up.key]) for t in ended],
            "x", color=INK, markersize=5, markeredgewidth=1.2, zorder=2, label="not complete",
        )  # fmt: skip


def _mark(axes: Axes, marks: Mapping[str, Mapping[str, Any]], across: Scale, up: Scale) -> None:
    for label, setting in marks.items():
        marker, size = ("D", 60) if label == "default" else ("*", 190)
        place = [scale.place(setting.get(scale.key)) for scale in (across, up)]
        if np.isfinite(place).all():
            axes.scatter(
                place[:1], place[1:], marker=marker, s=size, facecolors="white", zorder=3,
                edgecolors=VERMILLION, linewidths=1.6, label=label, clip_on=False,
            )  # fmt: skip


def _dress(axes: Axes, scale: Scale, side: Literal["x", "y"]) -> None:
    """Set scale, limits and tick labels of one axis."""
    axis: Any = axes.xaxis if side == "x" else axes.yaxis
    set_limits = axes.set_xlim if side == "x" else axes.set_ylim
    axis.set_label_text(shorten(scale.key, limit=60))
    if scale.choices:
        axes.tick_params(axis=side, length=0)
        axis.set_ticks(range(len(scale.choices)), [shorten(c, limit=24) for c in scale.choices])
        set_limits(-0.5, len(scale.choices) - 0.5)
        return
    if scale.is_log:
        (axes.set_xscale if side == "x" else axes.set_yscale)("log")
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(lambda *_: "")
    if scale.high > scale.low:
        low, high = scale.unshare(np.array([-0.03, 1.03]))
        set_limits(low, high)
