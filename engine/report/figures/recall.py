"""Recall of each class against its number of training images, with names that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.report.figures.style import (
    GREY,
    GROUP_COLOURS,
    INK,
    grid,
    new_figure,
    shorten,
    styled,
)
from engine.training.metrics import Limits, few_shot_groups
from engine.training.metrics.groups import USUAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

MAX_NAMED = 20
"""Most classes that are all named; beyond, the lowest recalls of each group are."""

NAMED_PER_GROUP = 5
MARKERS = {"many": "o", "medium": "s", "few": "^", "untrained": "D"}
DIRECTIONS = np.array([[1, 0], [0, 1], [0, -1], [-1, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]])
DISTANCES = (7, 14, 22, 30)
"""Points (1/72 inch) between a marker and its name, tried in this order."""


@styled
def recall_by_class_count(
    recall: npt.NDArray[np.floating],
    class_counts: npt.NDArray[np.integer],
    class_names: Sequence[str],
    *,
    title: str,
    limits: Limits = USUAL,
) -> Figure:
    """Draw the recall of each class against its training images on a logarithmic axis.

    Bands and markers show the groups, a horizontal line the mean recall of each. Up to 20 classes
    all are named, beyond that the five lowest recalls of each group; a name without room is left
    out.

    Args:
        recall: (C,) in [0, 1]; NaN, a class without test images, is not drawn.
        class_counts: (C,) training images. With a class that has none, the axis starts at 0.
        class_names: C names.
        title: First line of the figure.
        limits: Of the groups.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = new_figure(8.0, 4.8, title=title)
    axes = figure.add_subplot()
    _scale_axes(axes, class_counts)
    bands = _draw_bands(axes, limits)
    named: list[int] = []
    groups = few_shot_groups(class_counts, limits) | {"untrained": class_counts == 0}
    for group, mask in groups.items():
        members = np.flatnonzero(mask & ~np.isnan(recall))
        if members.size == 0:
            continue
        label = f"{group} ({limits.words[group]})"
        _draw_group(axes, group, label, counts=class_counts[members], recall=recall[members])
        mean = float(recall[members].mean())
        axes.hlines(mean, *bands[group], color=GROUP_COLOURS[group], alpha=0.5, linestyle="--")
        lowest = members[np.argsort(recall[members], kind="stable")].tolist()
        # The tail is named first, while there is room.
        named = (lowest if len(recall) <= MAX_NAMED else lowest[:NAMED_PER_GROUP]) + named
    figure.legend(loc="outside lower left", ncols=3, handletextpad=0.1, columnspacing=1.2)
    points = np.column_stack([class_counts, recall])
    names = [shorten(class_names[i], limit=24) for i in named]
    # The room for names is known only once the layout is, which then stays as it is.
    renderer, layout = FigureCanvasAgg(figure).get_renderer(), figure.get_layout_engine()
    assert layout is not None
    layout.execute(figure)
    figure.set_layout_engine("none")
    obstacles = axes.transData.transform(points[~np.isnan(recall)])
    _place_names(axes, names, points=points[named], obstacles=obstacles, renderer=renderer)
    return figure


def _scale_axes(axes: Axes, counts: npt.NDArray[np.integer]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    low, high = float(counts.min()), float(counts.max()) * 1.6
    # A logarithmic axis has no place for a class without training images.
    axes.set_xscale("symlog", linthresh=1, linscale=0.3) if low == 0 else axes.set_xscale("log")
    left = -0.3 if low == 0 else low / 1.6
    axes.set(xlim=(left, high), ylim=(-0.05, 1.08))
    axes.set(xlabel="Training images of the class (log scale)", ylabel="Recall")
    axes.set_yticks(np.linspace(0, 1, 6))
    if low > 0:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    grid(axes, axis="y")


def _draw_bands(axes: Axes, limits: Limits) -> dict[str, tuple[float, float]]:
    """Shade the groups and return where each band begins and ends on the axis."""
    left, right = axes.get_xlim()
    # Between the integers: 20 is medium and 100 is, too.
    few_start, few_end, many_start = 0.5, limits.few_below - 0.5, limits.many_above + 0.5
    edges = {
        "many": (many_start, right),
        "medium": (few_end, many_start),
        "few": (few_start, few_end),
        "untrained": (left, few_start),
    }
    bands = {g: (max(start, left), min(stop, right)) for g, (start, stop) in edges.items()}
    for group, (start, stop) in bands.items():
        if start < stop:
            axes.axvspan(start, stop, color=GROUP_COLOURS[group], alpha=0.07, linewidth=0)
    return bands


def _draw_group(
    axes: Axes,
    group: str,
    label: str,
    *,
    counts: npt.NDArray[np.integer],
    recall: npt.NDArray[np.floating],
) -> None:
    plural = "class" if recall.size == 1 else "classes"
    axes.plot(
        counts,
        recall,
        label=f"{label}: {recall.size} {plural}, mean {recall.mean():.3f}",
        color=GROUP_COLOURS[group],
        linestyle="none",
        marker=MARKERS[group],
        markersize=6,
        markeredgecolor="white",
        markeredgewidth=0.6,
    )


def _place_names(
    axes: Axes,
    names: Sequence[str],
    *,
    points: npt.NDArray[np.floating],
    obstacles: npt.NDArray[np.floating],
    renderer: RendererAgg,
) -> None:
    """Write each name near its point where it covers no marker and no other name, or not at all.

    ``points`` are in data units, ``obstacles``, the markers of all classes, in pixels.
    """
    from matplotlib.patheffects import withStroke

    placed: list[Bbox] = []
    for name, point in zip(names, points, strict=True):
        label = axes.annotate(
            name,
            xy=(point[0], point[1]),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=8,
            color=INK,
            path_effects=[withStroke(linewidth=2, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0},
        )
        box = _find_room(label, axes.bbox, renderer=renderer, markers=obstacles, taken=placed)
        if box is None:
            label.remove()
        else:
            placed.append(box)


def _find_room(
    label: Annotation,
    frame: Bbox,
    *,
    renderer: RendererAgg,
    markers: npt.NDArray[np.floating],
    taken: Sequence[Bbox],
) -> Bbox | None:
    """Move ``label`` to the first free position inside ``frame`` and return its box in pixels."""
    from matplotlib.text import Text

    for distance in DISTANCES:
        for x, y in DIRECTIONS:
            label.set_position((x * distance, y * distance))
            label.set(ha=["center", "left", "right"][x], va=["center", "bottom", "top"][y])
            assert label.arrow_patch is not None
            label.arrow_patch.set_visible(distance > DISTANCES[0])
            label.update_positions(renderer)
            # The extent of the name alone: that of an annotation includes its arrow.
            box = Text.get_window_extent(label, renderer).padded(1)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1
            inside = inside and frame.y0 < box.y0 and box.y1 < frame.y1
            covers = box.padded(3).count_contains(markers)
            if inside and not covers and not any(box.overlaps(other) for other in taken):
                return box
    return None
