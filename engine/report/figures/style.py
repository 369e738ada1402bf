"""The one look of all figures: type, colours, group colours, class names that stay inert."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterable
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

FONT = "DejaVu Sans"
# Fonts that may have Chinese, Japanese or Korean letters, by words of their names.
FALLBACK_NAMES = re.compile(
    r"CJK|Source Han|Fallback|Unicode MS|WenQuanYi|Unifont|Hiragino|PingFang|Heiti|Songti|YaHei"
    r"|SimHei|SimSun|JhengHei|MingLiU|IPA|Takao|VL Gothic|Meiryo|MS Gothic|Yu Gothic|Nanum|Malgun"
    r"|Gulim|Batang|Baekmuk|Apple SD|UnDotum|AR PL"
)
# A simplified and a traditional Chinese, a Japanese and a Korean letter.
LETTERS = "汉漢あ한"

STYLE: dict[str, Any] = {
    "font.family": FONT,
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
    """Run ``draw`` under ``STYLE`` over Matplotlib's defaults, and restore the settings after it.

    A personal matplotlibrc therefore changes no figure, and no figure changes the caller's.
    """

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib.style

        families = [FONT, *fallback_fonts()]
        log = logging.getLogger("matplotlib.font_manager")
        level = log.level
        log.setLevel(logging.ERROR)  # else it warns of every font without a bold face
        try:
            with matplotlib.style.context({**STYLE, "font.family": families}, after_reset=True):
                return draw(*args, **kwargs)
        finally:
            log.setLevel(level)

    return wrapper


def new_figure(width: float, height: float, *, title: str) -> Figure:
    """Return an empty figure, sizes in inches, outside pyplot; to be called under ``styled``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(legible(title), x=0.01, ha="left")
    return figure


def grid(axes: Any, *, axis: Literal["x", "y", "both"]) -> None:
    """Draw light grid lines behind the data, without tick marks."""
    axes.grid(visible=True, axis=axis)
    axes.tick_params(length=0)


def shorten(name: str, *, limit: int) -> str:
    """Return ``name`` in at most ``limit`` characters on one line, with its middle left out.

    >>> shorten("Acanthurus_leucosternon", limit=12)
    'Acanth…ernon'
    """
    name = legible(name)
    if len(name) <= limit:
        return name
    tail = (limit - 1) // 2
    return f"{name[: limit - 1 - tail]}…{name[len(name) - tail :]}"


def legible(text: str) -> str:
    """Return ``text`` on one line, with a box for each character that the figures' fonts lack."""
    known = _known_characters()
    return "".join(c if ord(c) in known else "□" for c in " ".join(text.split()))


def illegible(texts: Iterable[str]) -> str:
    """Return the characters that the figures' fonts lack, each once, in order of appearance."""
    known = _known_characters()
    found = dict.fromkeys(c for text in texts for c in "".join(text.split()) if ord(c) not in known)
    return "".join(found)


@functools.cache
def fallback_fonts() -> tuple[str, ...]:
    """Return installed fonts that have Chinese, Japanese and Korean letters, as few as will do."""
    from matplotlib.font_manager import fontManager

    missing, found = set(LETTERS), []
    for name in sorted({f.name for f in fontManager.ttflist if FALLBACK_NAMES.search(f.name)}):
        has = {letter for letter in missing if ord(letter) in _characters(name)}
        if has:
            found.append(name)
            missing -= has
    return tuple(found)


@functools.cache
def _known_characters() -> frozenset[int]:
    return frozenset().union(*(_characters(name) for name in (FONT, *fallback_fonts())))


@functools.cache
def _characters(family: str) -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(family)).get_charmap())
