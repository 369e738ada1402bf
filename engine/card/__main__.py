"""``python -m engine.card``: what a data set is, and what its test split can show."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config.arguments import Parser, unknown_options
from engine.config.load import load
from engine.config.mistakes import ConfigError

if TYPE_CHECKING:
    from engine.card.card import Card

USAGE = """\
usage: python -m engine.card [FILE.yaml ...] [key=value ...] [--near BITS] [--out FOLDER]

Describe the data of a config before anything is trained: classes and images, how long the tail is,
files, repeated images, groups that belong together, and what differences the test split can show.
Nothing is trained and no run folder is written. Of what train.py refuses data for, files that are
missing or cannot be read, images or groups in two splits, and too few images or groups to hold
validation out are named and the rest is described, with exit code 1; any other mistake ends the
card as it ends train.py, with exit code 2.

  python -m engine.card data=infrared_solar
  python -m engine.card data=image_folder data.path=photos data.size=64 --near 4 --out card

options:
  --near BITS   also count images of two splits that look alike: 64-bit difference hashes that
                differ in at most so many bits (0 to 16)
  --out FOLDER  write card.md and its picture (PNG and PDF) into a folder
  -h, --help    this text
"""
OPTIONS = ("--near", "--out", "--help")
MOST_BITS = 16


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    from engine.training.files import WriteError

    try:
        given = _parse(argv)
        if given.help:
            print(USAGE, end="")
            return 0
        config = load(given.files, given.overrides)
        from engine.card.card import card_of

        card = card_of(config, most_bits=given.near)
        _print(card)
        if given.out is not None:
            _write(card, given.out)
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2
    except WriteError as error:
        print(error, file=sys.stderr)
        return 1
    return 1 if card.faults else 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser("python -m engine.card")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--near", type=int)
    parser.add_argument("--out", type=Path)
    given, unknown = parser.parse_known_intermixed_args(argv)
    mistakes = unknown_options(unknown, OPTIONS)
    if given.near is not None and not 0 <= given.near <= MOST_BITS:
        mistakes.append(f"--near {given.near}: expected 0 to {MOST_BITS} bits")
    if given.out is not None and given.out.exists() and not given.out.is_dir():
        mistakes.append(f"--out {given.out}: is a file; name a folder")
    if mistakes:
        raise ConfigError(mistakes)
    given.files = [Path(word) for word in given.words if "=" not in word]
    given.overrides = [word for word in given.words if "=" in word]
    return given


def _print(card: Card) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from engine.card.text import REFUSED, facts
    from engine.config.messages import one_line
    from engine.report.data_facts import explanations, headings, rows

    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(one_line(card.title)))
    for word, sentence in facts(card):
        console.print(Text(f"{word:<8} {sentence}"))
    if card.faults:
        console.print(Text(REFUSED, style="bold"))
    for fault in card.faults:
        console.print(Text(f"  {one_line(fault)}"))
    table = Table(box=SIMPLE_HEAD)
    for heading in headings(card):
        is_text = heading in ("class", "group")
        table.add_column(heading, justify="left" if is_text else "right")
    for row in rows(card):
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    for line in (*explanations(card), *(f"note: {one_line(note)}" for note in card.notes)):
        console.print(Text(line))


def _write(card: Card, folder: Path) -> None:
    from engine.card.picture import card_figure
    from engine.card.text import markdown
    from engine.report import figures
    from engine.training.files import write_text, writing

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([f"--out {folder}: cannot be made ({error.strerror})"]) from error
    with writing(folder):
        figures.save(card_figure(card), folder / "card")
    with writing(folder / "card.md"):
        write_text(folder / "card.md", markdown(card, picture="card.png"))
    print(f"written: {folder}/card.md, card.png and card.pdf")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
