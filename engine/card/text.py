"""A card in words: its facts as pairs, its classes as rows; the same for terminal and Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from engine.card.card import Card
from engine.card.files import FileFacts
from engine.config.messages import counted, one_line
from engine.report.data_facts import (
    SPLITS,
    class_sentence,
    explanations,
    headings,
    points,
    rows,
    sentences,
)
from engine.report.resolution import seeds_needed
from engine.report.statistics import FEWEST_FOR_A_CLAIM

_MOST_KINDS = 4  # formats or sizes named one by one
POINT = 0.01
REFUSED = "train.py refuses these data:"


def facts(card: Card) -> Iterator[tuple[str, str]]:
    """Yield what is said of the whole set: a word and a sentence."""
    channels, height, width = card.image_shape
    totals = ", ".join(f"{num:,} {SPLITS[split]}" for split, num in card.totals.items())
    num_channels = counted(channels, "channel")
    yield "images", f"{totals}; {width}x{height} pixels, {num_channels}"
    yield "classes", class_sentence(card)
    for word, sentence in sentences(card):
        yield word, sentence
        if word == "tail" and card.files is not None:
            yield "files", _files(card.files)
    yield "seeds", _seeds(card)


def markdown(card: Card, *, picture: str) -> str:
    """Return the card as a page."""
    table = [headings(card), ["---", "---", *["---:"] * (len(headings(card)) - 2)], *rows(card)]
    return "\n".join(
        [
            f"# {one_line(card.title)}",
            "",
            *(f"- {word}: {sentence}" for word, sentence in facts(card)),
            *([f"- {REFUSED}"] if card.faults else []),
            *(f"  - {one_line(fault)}" for fault in card.faults),
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


def _files(found: FileFacts) -> str:
    kinds = [f"{num:,} {kind}" for kind, num in found.kinds[:_MOST_KINDS]]
    sizes = [f"{num:,} of {w}x{h}" for (w, h), num in found.sizes[:_MOST_KINDS]]
    if rest := found.kinds[_MOST_KINDS:]:
        kinds.append(f"{sum(num for _, num in rest):,} in {counted(len(rest), 'other kind')}")
    if others := found.sizes[_MOST_KINDS:]:
        num_files = sum(num for _, num in others)
        sizes.append(f"{num_files:,} in {counted(len(others), 'other size')}")
    megabytes = found.num_bytes / 1e6
    readable = "all can be read"
    if found.broken:
        readable = f"{len(found.broken):,} of {found.num:,} cannot be read, and are left out here"
    return "; ".join([", ".join(kinds), ", ".join(sizes), f"{megabytes:,.1f} MB", readable])


def _seeds(card: Card) -> str:
    if card.noise is None:
        return "no earlier runs tell their noise (two seeds of one config)"
    found = card.noise
    runs = f"{found.num_runs} runs of {counted(found.num_configs, 'config')}"
    noise = f"noise {points(found.std)} points of balanced accuracy ({runs})"
    if found.num_runs < FEWEST_FOR_A_CLAIM:
        return (
            f"{noise}; from {FEWEST_FOR_A_CLAIM} runs on it is said how many seeds a difference "
            "of one point takes"
        )
    needed = seeds_needed(found.std, difference=POINT)
    number = "more than 1,000" if needed is None else f"{needed}"
    return (
        f"{noise}; to find a difference of one point between two methods four times in five takes "
        f"{number} seeds of each, paired (Student's t; the tables' interval is wider at few "
        "seeds), on top of ±"
    )
