"""Draw what each method does to the recall of frequent and of rare classes.

    python -m docs.head_and_tail experiments/results/digits_lt.jsonl docs/head_and_tail.png

The head is the third of the classes with the most training images, the tail the third with the
fewest. Every line is a method: how far its mean recall of head and tail lies from the baseline's,
seed by seed, averaged over the seeds that both have.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from engine.config.mistakes import ConfigError
from engine.report.figures.style import (
    BLUE,
    GREY,
    INK,
    VERMILLION,
    grid,
    legible,
    new_figure,
    shorten,
    styled,
)
from engine.tables import record
from engine.tables.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAD, TAIL = BLUE, VERMILLION
ROW_HEIGHT, PANEL_WIDTH, LABEL_WIDTH = 0.28, 3.4, 2.4
"""Inches."""


class Shift(NamedTuple):
    """How far a method moves mean recall from the baseline's, in points of percent."""

    method: str
    head: float
    tail: float
    num_seeds: int


def main(argv: Sequence[str] | None = None) -> int:
    """Draw a results file into the file named."""
    parser = argparse.ArgumentParser(prog="python -m docs.head_and_tail")
    parser.add_argument("results", type=Path, help="a file of experiments/results")
    parser.add_argument("path", type=Path, help="a .png or .pdf file")
    parser.add_argument(
        "--baseline", default="cross_entropy", help="what the others are set against"
    )
    given = parser.parse_args(argv)
    try:
        figure = draw(record.read(given.results), baseline=given.baseline)
        given.path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(given.path)
    except (ConfigError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def head_and_tail(run: RunRecord) -> tuple[float, float]:
    """Return the mean recall of the most and of the least frequent third of a run's classes.

    >>> from types import SimpleNamespace as Made
    >>> rule = Made(recall=(0.9, 0.8, 0.3))
    >>> head_and_tail(Made(class_counts=(50, 20, 1), headline="last", rules={"last": rule}))
    (0.9, 0.3)
    """
    recalls = run.rules[run.headline].recall
    order = sorted(range(len(recalls)), key=lambda label: -run.class_counts[label])
    third = max(len(order) // 3, 1)
    head, tail = (
        [value for label in part if (value := recalls[label]) is not None]
        for part in (order[:third], order[-third:])
    )
    return statistics.fmean(head), statistics.fmean(tail)


def shifts(runs: Sequence[RunRecord], *, baseline: str) -> list[Shift]:
    """Return what every method of one setting does.

    Raises:
        ValueError: The baseline has no run, or shares no seed with a method.
    """
    found: dict[str, dict[tuple[int, int], tuple[float, float]]] = {}
    for run in runs:
        found.setdefault(run.method, {})[run.seed, run.subset_seed] = head_and_tail(run)
    if baseline not in found:
        raise ValueError(f"no run of the baseline {baseline!r}: choose from {', '.join(found)}")
    moved = []
    for method, by_seed in found.items():
        seeds = sorted(by_seed.keys() & found[baseline].keys())
        if not seeds:
            raise ValueError(f"{method} and {baseline} share no seed")
        if method != baseline:
            head, tail = (
                100 * statistics.fmean(by_seed[s][part] - found[baseline][s][part] for s in seeds)
                for part in (0, 1)
            )
            moved.append(Shift(method, head, tail, len(seeds)))
    return moved


@styled
def draw(runs: Sequence[RunRecord], *, baseline: str = "cross_entropy") -> Figure:
    """Draw a panel a setting, a line a method from its head (square) to its tail (triangle).

    Raises:
        ValueError: There is no run, or `shifts` finds nothing to compare with.
    """
    settings = list(dict.fromkeys(run.setting for run in runs))
    if not settings:
        raise ValueError("the results file has no runs")
    panels = [
        shifts([run for run in runs if run.setting == setting], baseline=baseline)
        for setting in settings
    ]
    order = _by_tail(panels)
    height = len(order) * ROW_HEIGHT + 1.6
    title = f"{runs[0].title.split(',')[0]}: recall of head and tail against {baseline}"
    figure = new_figure(PANEL_WIDTH * len(panels) + LABEL_WIDTH, height, title=title)
    row_of_axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for axes, setting, panel in zip(row_of_axes, settings, panels, strict=True):
        _draw_panel(axes, panel, order)
        axes.set_title(legible(setting or "all runs"))
    figure.legend(*row_of_axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return figure


def _by_tail(panels: Sequence[Sequence[Shift]]) -> list[str]:
    """Return the methods, the largest mean gain of the tail last, which is at the top."""
    tails: dict[str, list[float]] = {}
    for shift in (shift for panel in panels for shift in panel):
        tails.setdefault(shift.method, []).append(shift.tail)
    return sorted(tails, key=lambda method: statistics.fmean(tails[method]))


def _draw_panel(axes: Axes, panel: Sequence[Shift], order: Sequence[str]) -> None:
    rows = [order.index(shift.method) for shift in panel]
    heads, tails = [shift.head for shift in panel], [shift.tail for shift in panel]
    axes.hlines(rows, heads, tails, color=GREY, linewidth=1)
    axes.plot(heads, rows, "s", color=HEAD, label="head: most frequent third of the classes")
    axes.plot(tails, rows, "^", color=TAIL, label="tail: rarest third of the classes")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(order)), [shorten(method, limit=30) for method in order])
    axes.set_ylim(-0.7, len(order) - 0.3)
    fewest = min((shift.num_seeds for shift in panel), default=0)
    axes.set_xlabel(f"change of recall, points; at least {fewest} seeds")
    grid(axes, axis="x")


if __name__ == "__main__":
    raise SystemExit(main())
