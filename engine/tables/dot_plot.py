"""The rows of a table as dots: balanced accuracy with its interval, head and tail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config.mistakes import ConfigError
from engine.report.figures.style import (
    BLUE,
    GREY,
    GROUP_COLOURS,
    INK,
    grid,
    legible,
    new_figure,
    shorten,
    styled,
)
from engine.tables.aggregate import PRIMARY, Block, Row
from engine.tables.pairing import value_of
from engine.tables.style import Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUPS = {"many_accuracy": "many", "medium_accuracy": "medium", "few_accuracy": "few"}
MARKERS = {"many": "o", "medium": "s", "few": "^"}
PANELS = 3
ROW_HEIGHT, PANEL_WIDTH = 0.3, 3.4
"""Inches."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure into a PNG or PDF file.

    Raises:
        ConfigError: the file cannot be written.
    """
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata=metadata)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be written: {error.strerror}"]) from error


@styled
def draw(blocks: Sequence[Block], *, title: str = "", style: Style | None = None) -> Figure:
    """Draw three panels a block, a line a method in the order of the table.

    Left: balanced accuracy, mean (dot) and every run (ticks). Middle: the paired difference to the
    baseline row with its 95 % interval, filled where it is distinguishable. Right: mean accuracy of
    the classes with many, medium and few training images.

    Args:
        blocks: of one table.
        title: of the table; its name where empty.
        style: how its rows are called.
    """
    style = style or Style()
    heights = [max(len(block.rows), 3) * ROW_HEIGHT + 1.15 for block in blocks]
    said = f"{title or blocks[0].table}: test, rule {blocks[0].rule}"
    figure = new_figure(1.6 + PANELS * PANEL_WIDTH, sum(heights) + 0.4, title=said)
    all_axes = figure.subplots(
        len(blocks), PANELS, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for block, (scores, differences, groups) in zip(blocks, all_axes, strict=True):
        for axes in (scores, differences, groups):
            _lay_out(axes, block)
        scores.set_title(legible(block.setting))
        names = [shorten(style.label(row.method), limit=32) for row in block.rows]
        scores.set_yticklabels(names)
        _draw_scores(scores, block.rows, rule=block.rule)
        _draw_differences(differences, block, baseline=style.label(block.baseline))
        _draw_groups(groups, block)
    return figure


def _lay_out(axes: Axes, block: Block) -> None:
    axes.set_ylim(len(block.rows) - 0.4, -0.6)
    axes.set_yticks(range(len(block.rows)), labels=[])
    grid(axes, axis="both")


def _draw_scores(axes: Axes, rows: Sequence[Row], *, rule: str) -> None:
    axes.set_xlabel("balanced accuracy: runs and mean")
    for y, row in enumerate(rows):
        summary = row.scores[PRIMARY].summary
        if summary is None:
            continue
        found = [value_of(record, PRIMARY, rule=rule) for record in row.records]
        runs = [value for value in found if value is not None]
        axes.plot(runs, [y] * len(runs), "|", color=GREY, markersize=9)
        axes.plot([summary.mean], [y], "o", color=BLUE, markersize=6)


def _draw_differences(axes: Axes, block: Block, *, baseline: str) -> None:
    every = [row.scores[PRIMARY].difference for row in block.rows]
    counts = sorted({difference.n for difference in every if difference is not None})
    n = f", n = {' or '.join(map(str, counts))}" if counts else ""
    axes.set_xlabel(legible(f"difference to {baseline}, paired, 95 % interval{n}"))
    axes.axvline(0, color=INK, linewidth=0.9)
    if all(row.scores[PRIMARY].difference is None for row in block.rows):
        axes.set_xticks([0])
        axes.text(0.5, 0.5, "no two rows are paired", transform=axes.transAxes, ha="center")
    for y, row in enumerate(block.rows):
        found = row.scores[PRIMARY].difference
        if found is None:
            continue
        if found.low is not None and found.high is not None:
            axes.hlines(y, found.low, found.high, color=BLUE, linewidth=1.6)
        fill = BLUE if found.is_distinguishable else "white"
        axes.plot([found.mean], [y], "o", color=BLUE, markerfacecolor=fill, markersize=6)


def _draw_groups(axes: Axes, block: Block) -> None:
    axes.set_xlabel("accuracy by training images of the class")
    for metric, group in GROUPS.items():
        means = [_mean(row, metric) for row in block.rows]
        if all(math.isnan(mean) for mean in means):
            continue
        size = block.group_sizes.get(group, 0)
        axes.plot(
            means,
            range(len(means)),
            linestyle="none",
            marker=MARKERS[group],
            color=GROUP_COLOURS[group],
            markersize=6,
            label=f"{group} ({size})",
        )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, handletextpad=0.1)


def _mean(row: Row, metric: str) -> float:
    summary = row.scores[metric].summary
    return math.nan if summary is None else summary.mean
