"""Learning curves: loss, accuracy, accuracy by group and learning rate against the epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.report.figures.style import (
    BLUE,
    GREY,
    GROUP_COLOURS,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    grid,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Line(NamedTuple):
    """Colour and dash pattern of one curve."""

    colour: str
    dash: str = "-"


PANELS: dict[str, dict[str, Line]] = {
    "Loss": {
        "train/loss": Line(GREY),
        "val/nll": Line(BLUE, "--"),
        "test/nll": Line(ORANGE, "--"),
    },
    "Accuracy": {
        "train/accuracy": Line(GREY),
        "val/accuracy": Line(SKY),
        "val/balanced_accuracy": Line(BLUE),
        "test/accuracy": Line(ORANGE, "--"),
        "test/balanced_accuracy": Line(VERMILLION, "--"),
    },
    "Accuracy by group": {
        f"{split}/{group}_accuracy": Line(colour, dash)
        for split, dash in {"val": "-", "test": "--"}.items()
        for group, colour in GROUP_COLOURS.items()
        if group != "untrained"  # is no group of the metrics
    },
    "Learning rate": {"lr": Line(PURPLE)},
}


@styled
def learning_curves(
    rows: Sequence[Mapping[str, Any]], *, title: str, best_epoch: int | None = None
) -> Figure:
    """Draw loss, accuracy, accuracy by group and learning rate against the epoch.

    Args:
        rows: One mapping an epoch with the key epoch, as in metrics.jsonl, at least one. The curves
            are the keys of ``PANELS`` that occur; a value that is absent or None leaves a gap.
        title: First line of the figure.
        best_epoch: Marked by a dotted line in every panel.
    """
    present = {key for row in rows for key, value in row.items() if value is not None}
    panels = {name: [key for key in lines if key in present] for name, lines in PANELS.items()}
    panels = {name: keys for name, keys in panels.items() if keys}
    assert panels, f"no curve among the keys {sorted(present)}"
    columns = min(2, len(panels))
    num_rows = -(-len(panels) // columns)
    if best_epoch is not None:
        title = f"{title} · dotted: best epoch, {best_epoch}"
    figure = new_figure(1 + 4.5 * columns, 0.5 + 2.9 * num_rows, title=title)
    for index, (name, keys) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(num_rows, columns, index)
        _draw_panel(axes, rows, name=name, keys=keys)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=INK, linestyle=":", linewidth=1.2, label="_best")
    return figure


def _draw_panel(
    axes: Axes, rows: Sequence[Mapping[str, Any]], *, name: str, keys: Sequence[str]
) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) <= 12 else ""
    for key in keys:
        values = [np.nan if row.get(key) is None else row[key] for row in rows]
        colour, dash = PANELS[name][key]
        axes.plot(
            epochs, values, color=colour, linestyle=dash, marker=marker, markersize=3, label=key
        )
    axes.set(title=name, xlabel="Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    grid(axes, axis="y")
    if name == "Learning rate":
        _scale_rate(axes)
    else:
        axes.legend(loc="best")
    if "accuracy" in name.lower():
        axes.set_ylim(-0.02, 1.02)


def _scale_rate(axes: Axes) -> None:
    """Give a rate that falls in steps a logarithmic axis: a linear one shows only the first."""
    rates = np.asarray(axes.lines[0].get_ydata(), dtype=float)
    rates = rates[np.isfinite(rates)]
    if rates.size and rates.min() > 0 and rates.max() / rates.min() >= 50:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axes.minorticks_off()
