"""The one look of all figures: type, colours, group colours, class names that stay inert."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

# Okabe and Ito (2008), "Color Universal Design": distinct for every common colour blindness.
BLUE, SKY, GREEN = "#0072B2", "#56B4E9", "#009E73"
ORANGE, VERMILLION, PURPLE = "#E69F00", "#D55E00", "#CC79A7"
INK, GREY, PALE = "#222222", "#767676", "#E4E4E4"

GROUP_COLOURS = {"many": BLUE, "medium": GREEN, "few": VERMILLION, "untrained": GREY}
GROUP_RULES = {"many": "> 100", "medium": "20 to 100", "few": "< 20", "untrained": "0"}

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    # Class names are data: "$" in one must not start a formula.
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "figure.dpi": 100,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "savefig.dpi": 150,
    "savefig.facecolor": "white",
    "savefig.bbox": "tight",
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
    "pdf.fonttype": 42,
}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run `draw` under `STYLE` on top of Matplotlib's defaults, and restore the settings after it.

    A personal matplotlibrc therefore changes no figure, and no figure changes the caller's.
    """

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib.style

        with matplotlib.style.context(STYLE, after_reset=True):
            return draw(*args, **kwargs)

    return wrapper


def new_figure(width: float, height: float, *, title: str) -> Figure:
    """Return an empty figure, sizes in inches, outside pyplot; to be called under `styled`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(legible(title), x=0.01, ha="left")
    return figure


def grid(axes: Any, *, axis: Literal["x", "y", "both"]) -> None:
    """Draw light grid lines behind the data, without tick marks."""
    axes.grid(visible=True, axis=axis)
    axes.tick_params(length=0)


def shorten(name: str, *, limit: int) -> str:
    """Return `name` in at most `limit` characters on one line, with its middle left out.

    >>> shorten("Acanthurus_leucosternon", limit=12)
    'Acanth…ernon'
    """
    name = legible(name)
    if len(name) <= limit:
        return name
    tail = (limit - 1) // 2
    return f"{name[: limit - 1 - tail]}…{name[len(name) - tail :]}"


def legible(text: str) -> str:
    """Return `text` on one line, with a box for each character that the figures' font lacks."""
    charmap = _charmap()
    return "".join(c if ord(c) in charmap else "□" for c in " ".join(text.split()))


@functools.cache
def _charmap() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(STYLE["font.family"])).get_charmap())
