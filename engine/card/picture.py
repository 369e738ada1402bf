"""The picture of a card: images of each class, and the half-width of its interval below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.card.card import Card
from engine.report.figures.style import BLUE, GREEN, ORANGE, SKY, grid, new_figure, shorten, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_NAMED = 40  # classes whose names fit below
_COLOURS = {"train": BLUE, "val": GREEN, "test": ORANGE}


@styled
def card_figure(card: Card) -> Figure:
    """Draw the images of each class by split on a logarithmic axis, and what test can show."""
    classes = sorted(card.classes, key=lambda own: -own.counts["train"])
    places = list(range(len(classes)))
    figure = new_figure(max(6.0, min(12.0, 0.45 * len(classes) + 2)), 5.2, title=card.title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for number, split in enumerate(card.totals):
        shift = 0.27 * (number - (len(card.totals) - 1) / 2)
        heights = [own.counts[split] for own in classes]
        above.bar(
            [place + shift for place in places],
            heights,
            width=0.26,
            color=_COLOURS[split],
            label=split,
        )
    above.set_yscale("symlog", linthresh=1)
    above.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    above.set_ylabel("images")
    figure.legend(loc="outside upper right", ncols=len(card.totals))
    widths = [own.half_width for own in classes]
    if card.num_groups:
        tops = [100 * (w.groups or 0.0) if w else 0.0 for w in widths]
        below.bar(places, tops, width=0.6, color=SKY, label="if groups are as one")
    below.bar(
        places, [100 * w.images if w else 0.0 for w in widths], width=0.6, color=BLUE, label="±"
    )
    below.set_ylabel("± of the recall (points)")
    if card.num_groups:
        below.legend()
    if len(classes) <= _MOST_NAMED:
        names = [shorten(own.name, limit=18) for own in classes]
        below.set_xticks(places, names, rotation=45, ha="right")
    else:
        below.set_xlabel("classes by falling number of training images")
    for axes in (above, below):
        grid(axes, axis="y")
    return figure
