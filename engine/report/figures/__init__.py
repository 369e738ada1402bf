"""Figures of a run: confusion matrix, recall against training count, curves, reliability diagram.

Each function returns a ``matplotlib.figure.Figure`` that is independent of pyplot and of the
backend; ``save`` writes it as PNG and PDF. Titles are the caller's: they name the split and
selection rule.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.report.figures.confusion import confusion_matrix
from engine.report.figures.curves import learning_curves
from engine.report.figures.pdf_fonts import without_layout_tables
from engine.report.figures.recall import recall_by_class_count
from engine.report.figures.style import GREY, INK, SKY, VERMILLION, grid, new_figure, styled
from engine.training.files import write_bytes
from engine.training.metrics.calibration import Reliability

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "confusion_matrix",
    "learning_curves",
    "recall_by_class_count",
    "reliability_diagram",
    "save",
]

# Without what differs from day to day and from version to version.
FORMATS: dict[str, dict[str, Any]] = {
    # Level 6, the default, takes half as long again for files that are 1 % smaller.
    "png": {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 4}},
    "pdf": {"metadata": {"CreationDate": None}},
}


@styled
def reliability_diagram(bins: Reliability, *, title: str) -> Figure:
    """Draw accuracy against confidence in 15 bins, and below it how often each confidence occurs.

    After Guo et al. (2017), figure 1: a bar that ends below the diagonal is over-confident. The
    title is followed by the expected calibration error.

    Args:
        bins: From :func:`engine.training.metrics.calibration.reliability`.
        title: First line of the figure.
    """
    figure = new_figure(5.2, 5.8, title=f"{title} · ECE {bins.ece:.3f}")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    width, left = np.diff(bins.edges), bins.edges[:-1]
    bar = {"width": width, "align": "edge", "edgecolor": "white", "linewidth": 0.8}
    upper.bar(left, bins.accuracy, color=SKY, label="accuracy", **bar)
    gap = bins.confidence - bins.accuracy
    upper.bar(
        left, gap, bottom=bins.accuracy, color="none", label="gap to confidence",
        width=width, align="edge", edgecolor=VERMILLION, linewidth=0.8, hatch="////",
    )  # fmt: skip
    upper.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1, label="calibrated")
    upper.set(ylim=(0, 1), ylabel="Accuracy")
    upper.legend(loc="upper left")
    lower.bar(left, bins.counts / bins.counts.sum(), color=GREY, **bar)
    lower.set(xlim=(0, 1), xlabel="Confidence (top probability)", ylabel="Share of images")
    for axes in (upper, lower):
        grid(axes, axis="y")
    return figure


@styled
def save(figure: Figure, stem: Path) -> None:
    """Write ``figure`` to <stem>.png (150 dpi) and <stem>.pdf; the same data give the same bytes.

    Missing folders are made; a stem may hold dots (confusion.last gives confusion.last.png).
    """
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # The layout is found once, and so is the part of the canvas that is drawn on: by itself
    # Matplotlib finds both again for each file, and draws the figure once more to do so.
    canvas, layout = FigureCanvasAgg(figure), figure.get_layout_engine()
    if layout is None:
        figure.draw_without_rendering()
    else:
        layout.execute(figure)
    figure.set_layout_engine(None)  # "none" would leave one that is asked again
    drawn = figure.get_tightbbox(canvas.get_renderer()).padded(rcParams["savefig.pad_inches"])
    with without_layout_tables():
        for ending, how in FORMATS.items():
            content = BytesIO()
            figure.savefig(content, format=ending, bbox_inches=drawn, **how)
            write_bytes(stem.parent / f"{stem.name}.{ending}", content.getvalue())
    figure.set_layout_engine(layout)
