"""The confusion matrix as shares of the true class, head classes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.report.figures.style import GROUP_COLOURS, PALE, new_figure, shorten, styled
from engine.training.metrics import Limits, few_shot_groups
from engine.training.metrics.groups import USUAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NUMBERED = 20
"""Most classes for which the confusion matrix writes a number into each cell."""

MAX_NAMED = 34
"""Most class names along a side of the confusion matrix; beyond, every n-th class is named."""


@styled
def confusion_matrix(
    confusion: npt.NDArray[np.integer],
    class_names: Sequence[str],
    class_counts: npt.NDArray[np.integer],
    *,
    title: str,
    limits: Limits = USUAL,
) -> Figure:
    """Draw the confusion matrix with each row as shares of its true class, head classes first.

    Args:
        confusion: (C, C) counts, rows = true class.
        class_names: C names.
        class_counts: (C,) training images; they order both sides (ties by class index) and mark
            the groups. A class without test images has an empty, grey row.
        title: First line of the figure.
        limits: Of the groups.
    """
    num_classes = len(class_names)
    order = np.argsort(-class_counts, kind="stable")
    totals = confusion.sum(axis=1, keepdims=True)
    unknown = np.full(confusion.shape, np.nan)
    shares = np.divide(confusion, totals, out=unknown, where=totals > 0)[np.ix_(order, order)]
    side = float(np.clip(2.6 + 0.42 * num_classes, 3.8, 9.6))
    figure = new_figure(side + 0.6, side, title=title)
    axes = figure.add_subplot()
    _draw_shares(axes, shares, numbered=num_classes <= MAX_NUMBERED)
    _name_classes(axes, [class_names[i] for i in order], class_counts[order])
    _mark_groups(axes, class_counts[order], limits)
    return figure


def _draw_shares(axes: Axes, shares: npt.NDArray[np.float64], *, numbered: bool) -> None:
    import matplotlib
    from matplotlib.colors import PowerNorm

    colours = matplotlib.colormaps["cividis"].with_extremes(bad=PALE)
    # The square root gives an error of one image in a hundred a visible colour.
    norm = PowerNorm(0.5, vmin=0.0, vmax=1.0)
    image = axes.imshow(shares, cmap=colours, norm=norm, interpolation="nearest")
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.035, 1)))
    ticks = [0, 0.01, 0.05, 0.2, 0.5, 1]
    bar.set_ticks(ticks, labels=[f"{share:.0%}" for share in ticks])
    bar.outline.set_visible(False)
    bar.set_label("Share of the true class\n(square-root scale)")
    axes.set_anchor("NW")
    axes.set(xlabel="Predicted class", ylabel="True class (training images)")
    axes.spines[:].set_visible(False)
    if not numbered:
        return
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            colour = "white" if norm(share) < 0.55 else "black"
            size = 9 if len(shares) <= 10 else 7
            text = _percent(share)
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def _percent(share: float) -> str:
    """Round to whole percent without showing a rare mistake as none or a near miss as perfect."""
    if share <= 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def _name_classes(axes: Axes, names: Sequence[str], counts: npt.NDArray[np.integer]) -> None:
    step = -(-len(names) // MAX_NAMED)
    shown = range(0, len(names), step)
    size = 9 if len(names) <= MAX_NUMBERED else 7
    short = [shorten(names[i], limit=20) for i in shown]
    flat = len(names) <= 3 and max(map(len, short)) <= 10
    axes.set_xticks(shown, short, rotation=0 if flat else 90, fontsize=size)
    axes.set_yticks(
        shown,
        [f"{name} ({counts[i]:,})" for i, name in zip(shown, short, strict=True)],
        fontsize=size,
    )
    axes.tick_params(length=2 if step > 1 else 0)


def _mark_groups(axes: Axes, counts: npt.NDArray[np.integer], limits: Limits) -> None:
    """Separate the groups by lines and name each above its columns; ``counts`` is descending."""
    from matplotlib.transforms import ScaledTranslation

    for name, mask in few_shot_groups(counts, limits).items():
        members = np.flatnonzero(mask)
        if members.size == 0:
            continue
        start, stop = members[0] - 0.5, members[-1] + 0.5
        above = axes.get_xaxis_transform() + ScaledTranslation(
            0, 5 / 72, axes.figure.dpi_scale_trans
        )
        axes.plot(
            [start, stop],
            [1, 1],
            color=GROUP_COLOURS[name],
            linewidth=4,
            solid_capstyle="butt",
            transform=above,
            clip_on=False,
        )
        axes.annotate(
            name,
            xy=((start + stop) / 2, 1),
            xycoords=above,
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
        if start > 0:
            axes.axhline(start, color="white", linewidth=1.2)
            axes.axvline(start, color="white", linewidth=1.2)
