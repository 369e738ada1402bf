"""Best-of-n figures: of one search, of several methods, of several samplers over repetitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.report.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    grid,
    new_figure,
    shorten,
    styled,
)
from engine.tuning.figures.best_of_n import BestOfN, best_of_n, best_so_far
from engine.tuning.figures.search_figures import whole_numbers
from engine.tuning.study.trials import Objective, complete, lost, pruned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

LINES = (
    (BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (PURPLE, (0, (6, 1, 1, 1, 1, 1))),
    (ORANGE, (0, (4, 2))), (SKY, (0, (1, 1))), (INK, (0, (8, 2))), (GREY, (0, (2, 1))),
)  # fmt: skip


@styled
def best_of_n_curve(
    trials: Sequence[FrozenTrial], objective: Objective, *, title: str, index: int = 0
) -> Figure:
    """Draw the best value that n of the trials' values hold, expected and as it really went."""
    values = values_of(trials, objective, index=index)
    found = best_of_n(values, direction=objective.direction)
    figure = new_figure(6.4, 3.9, title=title)
    axes = figure.subplots()
    _draw_best_of_n(axes, found, colour=BLUE, label="expected best of n of these trials")
    axes.fill_between([], [], [], color=BLUE, alpha=0.18, label="8 of 10 draws of n trials")
    real = best_so_far(values, direction=objective.direction)
    axes.step(
        found.draws, real, where="post", color=INK, linestyle=":", linewidth=1.4,
        label="best of the first n, as the search ran",
    )  # fmt: skip
    axes.set(xlabel="Trials, n", ylabel=f"Best {objective.metric}")
    whole_numbers(axes)
    grid(axes, axis="y")
    figure.legend(loc="outside lower left", ncols=2, borderaxespad=0.2)
    return figure


def values_of(
    trials: Sequence[FrozenTrial], objective: Objective, *, index: int = 0
) -> list[float]:
    """Return a value for every trial that has ended, by number.

    Those that did not end whole count as the worst that did: a search must not look as if it drew
    only from the trials that went well, and the last value of a pruned one is of another epoch.
    """
    known = {trial.number: trial.values[index] for trial in complete(trials)}
    assert known, "no trial is complete"
    worst = objective.sign * min(objective.sign * value for value in known.values())
    known |= {trial.number: worst for trial in (*pruned(trials), *lost(trials))}
    return [known[number] for number in sorted(known)]


@styled
def comparison(
    values: Mapping[str, Sequence[float]], objective: Objective, *, title: str
) -> Figure:
    """Draw the expected best of n of several searches on one plot, with a band each.

    Args:
        values: of each search's trials, by the name in the legend.
        objective: what the values are.
        title: first line of the figure.
    """
    figure = new_figure(6.8, 4.4, title=title)
    axes = figure.subplots()
    for index, (name, found) in enumerate(values.items()):
        colour, dash = LINES[index % len(LINES)]
        curve = best_of_n(found, direction=objective.direction)
        label = f"{shorten(name, limit=40)}, {len(found)} trials"
        _draw_best_of_n(axes, curve, colour=colour, label=label, dash=dash)
    axes.set(xlabel="Trials, n", ylabel=f"Expected best {objective.metric}")
    axes.set_title("bands: 8 of 10 draws of n trials", fontweight="normal")
    whole_numbers(axes)
    grid(axes, axis="y")
    figure.legend(loc="outside lower left", ncols=2, borderaxespad=0.2)
    return figure


@styled
def repetitions(
    values: Mapping[str, npt.NDArray[np.float64]], objective: Objective, *, title: str
) -> Figure:
    """Draw the best so far of several samplers: each repetition thin, their mean heavy.

    Args:
        values: (R, T) of each sampler, by its name: repetitions by trials.
        objective: what the values are.
        title: first line of the figure.
    """
    figure = new_figure(6.8, 4.4, title=title)
    axes = figure.subplots()
    for index, (name, found) in enumerate(values.items()):
        colour, dash = LINES[index % len(LINES)]
        runs = np.array([best_so_far(run.tolist(), direction=objective.direction) for run in found])
        draws = np.arange(1, runs.shape[1] + 1)
        for run in runs:
            axes.step(draws, run, where="post", color=colour, linewidth=0.7, alpha=0.45)
        axes.step(
            draws, runs.mean(axis=0), where="post", color=colour, linestyle=dash, linewidth=2.4,
            label=f"{shorten(name, limit=40)}, mean of {len(runs)}",
        )  # fmt: skip
    axes.set(xlabel="Trials, n", ylabel=f"Best {objective.metric} so far")
    axes.set_title("thin: one repetition", fontweight="normal")
    whole_numbers(axes)
    grid(axes, axis="y")
    figure.legend(loc="outside lower left", ncols=3, borderaxespad=0.2)
    return figure


def _draw_best_of_n(
    axes: Axes, found: BestOfN, *, colour: str, label: str, dash: object = "-"
) -> None:
    axes.fill_between(found.draws, found.low, found.high, color=colour, alpha=0.14, linewidth=0)
    marker = "o" if len(found.draws) == 1 else ""
    axes.plot(found.draws, found.mean, color=colour, linestyle=dash, marker=marker, label=label)
