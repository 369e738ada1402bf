"""A card in words: its facts as pairs, its classes as rows; the same for terminal and Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engine.card.card import Card
from engine.card.files import FileFacts
from engine.card.repeats import Repeats
from engine.card.resolution import HalfWidth, seeds_needed
from engine.config.messages import counted, one_line
from engine.report.statistics import DASH

_MOST_KINDS = 4  # formats or sizes named one by one
POINT = 0.01

EXPLANATION = (
    "±: half of a 95 % interval (Wilson) of one run's recall at 50 %, where it is widest; a "
    "difference of two runs has at most 1.41 times that, and less where both are right on the same "
    "images"
)
GROUPED = (
    "± by group: the same if all images of a class in one group are right or wrong together; the "
    "truth lies between the two"
)


def facts(card: Card) -> Iterator[tuple[str, str]]:
    """Yield what is said of the whole set: a word and a sentence."""
    channels, height, width = card.image_shape
    named = {"train": "training", "val": "validation", "test": "test"}
    totals = ", ".join(f"{num:,} {named[split]}" for split, num in card.totals.items())
    num_channels = counted(channels, "channel")
    yield "images", f"{totals}; {width}x{height} pixels, {num_channels}"
    yield "classes", _classes(card)
    shape = card.shape
    fifth = counted(shape.fifth, "class", "classes")
    yield (
        "tail",
        f"factor {shape.factor:.4g}, Gini {shape.gini:.3f}; of the training images the largest "
        f"{fifth} (a fifth) have {shape.head:.1%}, the smallest {shape.tail:.1%}",
    )
    if card.files is not None:
        yield "files", _files(card.files)
    yield "repeats", _repeats(card.repeats)
    if card.num_groups:
        groups = ", ".join(f"{num:,} {named[split]}" for split, num in card.num_groups.items())
        yield "groups", groups
    yield "shows", "; ".join(_means(card.means))
    yield "seeds", _seeds(card)


def headings(card: Card) -> list[str]:
    """Return the headings of the table of classes."""
    widths = ["±", "± by group"] if card.num_groups else ["±"]
    return ["class", "group", *card.totals, *widths]


def rows(card: Card) -> list[list[str]]:
    """Return a row a class by falling training count."""
    by_count = sorted(enumerate(card.classes), key=lambda pair: (-pair[1].counts["train"], pair[0]))
    return [
        [
            one_line(own.name),
            own.group or DASH,
            *(f"{own.counts[split]:,}" for split in card.totals),
            *_widths(own.half_width, has_groups=bool(card.num_groups)),
        ]
        for _, own in by_count
    ]


def explanations(card: Card) -> list[str]:
    """Return what the numbers mean."""
    return [EXPLANATION, GROUPED] if card.num_groups else [EXPLANATION]


def markdown(card: Card, *, picture: str) -> str:
    """Return the card as a page."""
    table = [headings(card), ["---", "---", *["---:"] * (len(headings(card)) - 2)], *rows(card)]
    return "\n".join(
        [
            f"# {one_line(card.title)}",
            "",
            *(f"- {word}: {sentence}" for word, sentence in facts(card)),
            "",
            *(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in table),
            "",
            *(f"- {line}" for line in explanations(card)),
            *(f"- note: {one_line(note)}" for note in card.notes),
            "",
            f"![Images of each class, and what the test split can show of it]({picture})",
            "",
        ]
    )


def points(width: float) -> str:
    """Return a half-width in points of per cent."""
    return f"{100 * width:.1f}"


def _classes(card: Card) -> str:
    sizes = ", ".join(f"{num} {group}" for group, num in card.group_sizes.items())
    text = f"{len(card.classes)}: {sizes}"
    for split, words in (("train", "training"), ("val", "validation"), ("test", "test")):
        lacking = [own.name for own in card.classes if own.counts.get(split) == 0]
        if lacking:
            more = " ..." if len(lacking) > _MOST_KINDS else ""
            named = one_line(", ".join(lacking[:_MOST_KINDS]))
            text += f"; without {words} images: {named}{more}"
    return text


def _files(found: FileFacts) -> str:
    kinds = [f"{num:,} {kind}" for kind, num in found.kinds[:_MOST_KINDS]]
    sizes = [f"{num:,} of {w}x{h}" for (w, h), num in found.sizes[:_MOST_KINDS]]
    if (rest := len(found.sizes) - _MOST_KINDS) > 0:
        sizes.append(f"and {rest:,} other sizes")
    megabytes = found.num_bytes / 1e6
    return f"{', '.join(kinds)}; {', '.join(sizes)}; {megabytes:,.1f} MB; all can be read"


def _repeats(found: Repeats) -> str:
    parts = [f"{num:,} within {split}" for split, num in found.within.items() if num]
    parts += [f"{num:,} of {b} in {a}, too" for (a, b), num in found.across.items() if num]
    text = "images that are there more than once: " + ", ".join(parts) if parts else "none"
    if found.near is not None:
        near = [f"{num:,} of {b} like one of {a}" for (a, b), num in found.near.items() if num]
        text += f"; looking alike: {', '.join(near) if near else 'none'}"
    return text


def _means(means: Mapping[str, HalfWidth | None]) -> Iterator[str]:
    for name, width in means.items():
        if width is not None:
            by_group = "" if width.groups is None else f" (± {points(width.groups)} by group)"
            yield f"{name} ± {points(width.images)}{by_group}"


def _seeds(card: Card) -> str:
    if card.noise is None:
        return "no earlier runs tell their noise (two seeds of one config)"
    found = card.noise
    needed = seeds_needed(found.std, difference=POINT)
    number = "more than 1,000" if needed is None else f"{needed}"
    configs = counted(found.num_configs, "config")
    return (
        f"noise {points(found.std)} points of balanced accuracy ({found.num_runs} runs of "
        f"{configs}); two methods one point apart need {number} seeds each, on top of ±"
    )


def _widths(width: HalfWidth | None, *, has_groups: bool) -> Sequence[str]:
    if width is None:
        return [DASH, DASH] if has_groups else [DASH]
    by_group = [DASH if width.groups is None else points(width.groups)] if has_groups else []
    return [points(width.images), *by_group]
