"""Figures of a search: history, importance of keys, Pareto front.

Like :mod:`engine.report.figures`: each returns a figure outside pyplot, and
titles are the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.report.figures.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SKY,
    VERMILLION,
    grid,
    new_figure,
    shorten,
    styled,
)
from engine.tuning.figures.best_of_n import best_so_far
from engine.tuning.study.trials import Objective, complete, lost, pruned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial


@styled
def history(
    trials: Sequence[FrozenTrial],
    objective: Objective,
    *,
    title: str,
    index: int = 0,
    seed_std: float | None = None,
    default: float | None = None,
) -> Figure:
    """Draw each trial's value in the order of the search, and the best so far.

    Args:
        trials: of a study, at least one of them complete.
        objective: the one drawn, number ``index`` of each trial's values.
        title: first line of the figure.
        index: which of the values.
        seed_std: standard deviation over seeds: trials within one of the best are in the band.
        default: value of the default setting where it is known, for a line across.
    """
    done, stopped = complete(trials), pruned(trials)
    assert done, "no trial is complete"
    values = np.array([trial.values[index] for trial in done])
    numbers = np.array([trial.number for trial in done])
    figure = new_figure(6.4, 3.9, title=title)
    axes = figure.subplots()
    best = best_so_far(values.tolist(), direction=objective.direction)
    end = max(trial.number for trial in trials)
    axes.step(
        [*numbers, end], [*best, best[-1]], where="post", color=INK, linewidth=1.4,
        label="best so far", zorder=2,
    )  # fmt: skip
    if seed_std is not None:
        edges = sorted((best[-1], best[-1] - objective.sign * seed_std))
        label = f"within one std over seeds ({seed_std:.3g}) of the best"
        axes.axhspan(*edges, color=SKY, alpha=0.3, linewidth=0, label=label, zorder=0)
    if default is not None:
        axes.axhline(
            default,
            color=VERMILLION,
            linestyle="--",
            linewidth=1.2,
            label="default, over fresh seeds",
        )
    axes.plot(numbers, values, "o", color=BLUE, markersize=5, label="complete", zorder=3)
    if stopped:
        axes.plot(
            [t.number for t in stopped], [t.values[index] for t in stopped], "x", color=GREY,
            markersize=5, label="pruned, at its last value", zorder=3,
        )  # fmt: skip
    if gone := [trial.number for trial in lost(trials)]:
        rug = axes.get_xaxis_transform()
        axes.plot(
            gone, [0.02] * len(gone), "|", color=ORANGE, markersize=9, markeredgewidth=1.6,
            transform=rug, label="no finite value", clip_on=False,
        )  # fmt: skip
    _drop_outliers(axes, numbers, values=values, objective=objective)
    axes.set(xlabel="Trial", ylabel=objective.metric)
    whole_numbers(axes)
    grid(axes, axis="y")
    figure.legend(loc="outside lower left", ncols=2, borderaxespad=0.2)
    return figure


@styled
def importance_bars(
    found: Mapping[str, tuple[float, float, float]], *, title: str, note: str
) -> Figure:
    """Draw the importance of each key as a bar, with an interval.

    Args:
        found: value, lower and upper end by key.
        title: first line of the figure.
        note: second line: of what and from how many trials.
    """
    ranked = sorted(found.items(), key=lambda item: item[1][0])
    figure = new_figure(6.4, 1.5 + 0.34 * len(ranked), title=title)
    axes = figure.subplots()
    shares = np.array([value for _, value in ranked])
    errors = np.abs(shares[:, 1:].T - shares[:, 0])
    axes.barh(
        [shorten(key, limit=40) for key, _ in ranked], shares[:, 0], xerr=errors, color=SKY,
        height=0.6, error_kw={"ecolor": INK, "elinewidth": 1.1, "capsize": 3},
    )  # fmt: skip
    axes.set_title(note, fontweight="normal")
    axes.set(xlabel="Importance (PED-ANOVA), share", xlim=(0, 1.02))
    grid(axes, axis="x")
    return figure


@styled
def pareto_front(
    trials: Sequence[FrozenTrial],
    objectives: tuple[Objective, Objective],
    *,
    front: Sequence[int],
    title: str,
    default: tuple[float, float] | None = None,
) -> Figure:
    """Draw the trials of a search with two objectives, and the front that none of them beats.

    Args:
        trials: of a study, at least one of them complete.
        objectives: across and upwards.
        front: numbers of the trials on the front.
        title: first line of the figure.
        default: values of the default setting where they are known.
    """
    done = complete(trials)
    assert done, "no trial is complete"
    first, second = objectives
    unbeaten = set(front)
    on = sorted((t for t in done if t.number in unbeaten), key=lambda t: t.values[0])
    off = [t for t in done if t.number not in unbeaten]
    figure = new_figure(6.0, 4.8, title=title)
    axes = figure.subplots()
    axes.plot(*_points(off).T, "o", color=GREY, markersize=4.5, alpha=0.75, label="other trials")
    corners = _points(on)
    # What a front of such points is known to reach: never better than its worse neighbour.
    axes.step(*corners.T, where="post" if first.sign < 0 else "pre", color=BLUE, linewidth=1.2)
    axes.plot(*corners.T, "o", color=BLUE, markersize=7, label="front: no trial beats both values")
    if default is not None:
        axes.plot(
            *([v] for v in default), "D", color=VERMILLION, markerfacecolor="white", markersize=8,
            markeredgewidth=1.6, label="default",
        )  # fmt: skip
    for trial in on[:: max(1, -(-len(on) // 15))]:
        axes.annotate(
            f"{trial.number}", trial.values, xytext=(5, 4), textcoords="offset points",
            fontsize=8, color=INK,
        )  # fmt: skip
    axes.set(xlabel=first.metric, ylabel=second.metric)
    grid(axes, axis="both")
    figure.legend(loc="outside lower left", ncols=3, borderaxespad=0.2)
    return figure


def _points(trials: Sequence[FrozenTrial]) -> npt.NDArray[np.float64]:
    return np.array([trial.values for trial in trials], dtype=float).reshape(-1, 2)


def _drop_outliers(
    axes: Axes,
    numbers: npt.NDArray[np.int64],
    *,
    values: npt.NDArray[np.float64],
    objective: Objective,
) -> None:
    """Let far worse values than most leave the picture, marked at its edge and counted.

    One diverged setting would otherwise flatten the differences that the search is about.
    """
    signed = objective.sign * values
    first, best = np.quantile(signed, 0.25), signed.max()
    gone = signed < first - 3 * (best - first)
    if not gone.any() or gone.mean() > 0.25:
        return
    kept = values[~gone]
    margin = 0.08 * (np.ptp(kept) or 1.0)
    axes.set_ylim(kept.min() - margin, kept.max() + margin)
    side, shape = (0.02, "v") if objective.sign > 0 else (0.98, "^")
    axes.plot(
        numbers[gone], np.full(gone.sum(), side), shape, color=BLUE, markersize=5, zorder=3,
        transform=axes.get_xaxis_transform(), label=f"{gone.sum()} far worse, not to scale",
    )  # fmt: skip


def whole_numbers(axes: Axes) -> None:
    """Put ticks across at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
