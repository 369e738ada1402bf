"""Figures whose margins are known beforehand, drawn once.

Matplotlib's constrained layout measures every label several times, and a tight bounding box draws
a figure twice: more than half of what a small figure costs.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from engine.report.figures.style import new_figure, styled
from engine.training.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEFT, RIGHT, TOP = 0.62, 0.15, 0.42
"""Inches beside and above the axes: tick labels of four digits and a label; the title."""

LABELS, LEGEND = 0.5, 0.34
"""Inches below them: tick labels and a line of text; a line of the legend."""


def framed(
    width: float,
    height: float,
    *,
    title: str,
    columns: int = 1,
    gap: float = 0.4,
    below: float = LABELS + LEGEND,
    above: float = TOP,
    shares_y: bool = False,
) -> Figure:
    """Return a figure with axes side by side, and no layout to be found; to be called in a style.

    Args:
        width: in inches, as all lengths here; more where the title needs it.
        height: of the figure.
        title: of the figure.
        columns: how many axes.
        gap: between two of them, tick labels included.
        below: room under the axes, for labels and a legend at the lower left.
        above: room over them, for the title and those of the axes.
        shares_y: whether the axes have one scale, with its labels on the first.
    """
    figure = new_figure(width, height, title=title)
    figure.set_layout_engine(None)
    widen(figure)
    width = figure.get_figwidth()
    each = (width - LEFT - RIGHT - gap * (columns - 1)) / columns
    figure.subplots(
        1,
        columns,
        sharey=shares_y,
        gridspec_kw={
            "left": LEFT / width,
            "right": 1 - RIGHT / width,
            "bottom": below / height,
            "top": 1 - above / height,
            "wspace": gap / each,
        },
    )
    return figure


def widen(figure: Figure) -> None:
    """Make a figure as wide as its title needs, at the resolution it is saved with."""
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # Letters are placed on whole pixels: at another resolution the title is a little shorter.
    figure.set_dpi(rcParams["savefig.dpi"])
    (title,) = figure.texts
    end = title.get_window_extent(FigureCanvasAgg(figure).get_renderer()).x1
    figure.set_figwidth(max(figure.get_figwidth(), end / figure.dpi + RIGHT))


@styled
def save(figure: Figure, file: Path) -> Path:
    """Write a figure as PNG (150 dpi), and return the file; the same data give the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content, canvas = BytesIO(), FigureCanvasAgg(figure)
    metadata = {"Software": None}
    box, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
    if min(box.x0, box.y0) >= 0 and box.x1 <= width and box.y1 <= height:
        canvas.print_png(content, metadata=metadata)
    else:  # labels longer than the known margins: drawn once more, as wide as they need
        figure.savefig(content, format="png", bbox_inches="tight", metadata=metadata)
    write_bytes(file, content.getvalue())
    return file
