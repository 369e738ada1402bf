"""The command line of ``predict.py``: which run, which images, where the answers go."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from engine.config.mistakes import ConfigError, nearest
from engine.config.selection_rules import catalogue

USAGE = """\
usage: python predict.py RUN IMAGES ... [options]

Predict images with the model of a run folder. IMAGES are files, or folders that are searched with
all folders in them. Images are decoded, resized and normalised as the run's own were.

  python predict.py runs/photos/0123456789ab new_photos
  python predict.py runs/photos/0123456789ab a.jpg b.png --rule last
  python predict.py runs/photos/0123456789ab new_photos --csv predicted.csv

A run with data.size resizes an image's shorter side to it and takes the centre square. Any other
run takes images of its own size alone: 8x8 for digits, 28x28 for fashion_mnist, 32x32 for CIFAR.
Digits and Fashion-MNIST are greyscale, light strokes on black.

options:
  --csv FILE          write one line an image: file, predicted, probability, then the probability of
                      each class; the table on the screen then ends after 20 images
  --rule RULE         whose weights: last (the final ones) or val (the best validation epoch);
                      default val where the run has it
  --top N             classes shown of each image (default 3)
  --batch-size N      images at once (default 256)
  --device DEVICE     auto, cpu, cuda or mps (default auto)
  -h, --help          this text

An image that cannot be read is one line on the error output, and the others are predicted. Exit
code: 0 all images were predicted, 1 some could not be, 2 a mistake in the command.
"""
OPTIONS = tuple(re.findall(r"^  (?:-h, )?(--[a-z-]+)", USAGE, flags=re.MULTILINE))
CHOICES = {"rule": tuple(catalogue()), "device": ("auto", "cpu", "cuda", "mps")}


class Arguments(argparse.Namespace):
    """The parsed command line."""

    words: list[Path]
    csv: Path | None
    rule: str | None
    top: int
    batch_size: int
    device: str
    help: bool

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.words[0].expanduser()

    @property
    def images(self) -> list[Path]:
        """The files and folders to predict."""
        return [path.expanduser() for path in self.words[1:]]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([f"{message}; see python predict.py --help"])


def parse(argv: Sequence[str]) -> Arguments:
    """Read the command line, and check all that needs no model.

    Raises:
        ConfigError: with every mistake in it.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*", type=Path)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--rule")
    parser.add_argument("--top", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--device", default="auto")
    parser.add_argument("-h", "--help", action="store_true")
    given, unknown = parser.parse_known_intermixed_args(argv, Arguments())
    options = [word for word in unknown if word.startswith("-")]
    mistakes = [f"{word}: unknown option{nearest(word, OPTIONS)}" for word in options]
    if not given.help:
        mistakes += _mistakes(given)
    if mistakes:
        raise ConfigError(mistakes)
    return given


def _mistakes(given: Arguments) -> Iterator[str]:
    if not given.words:
        yield "expected a run folder and images, as in: python predict.py runs/digits/... images"
        return
    yield from _mistakes_of_run(given.run)
    if not given.images:
        yield f"expected images after the run folder {given.run}: files, or folders of them"
    for path in given.images:
        if not path.exists():
            yield f"{path}: no such file or folder"
    for name, choices in CHOICES.items():
        value = getattr(given, name)
        if value is not None and value not in choices:
            hint = nearest(value, choices)
            yield f"--{name} {value}: expected one of {' | '.join(choices)}{hint}"
    for name in ("top", "batch_size"):
        if getattr(given, name) < 1:
            option = name.replace("_", "-")
            yield f"--{option} {getattr(given, name)}: expected a whole number >= 1"
    if given.csv is not None:
        if given.csv.suffix.lower() != ".csv":
            yield f"--csv {given.csv}: expected a file that ends in .csv"
        elif given.csv.is_dir() or not given.csv.expanduser().absolute().parent.is_dir():
            yield f"--csv {given.csv}: expected a file in a folder that is there"


def _mistakes_of_run(run: Path) -> Iterator[str]:
    """Yield what is wrong with the run folder; for a folder of runs, name them."""
    if (run / "config.yaml").is_file():
        return
    if not run.is_dir():
        yield f"{run}: no such run folder"
        return
    runs = sorted(str(path.parent) for path in run.glob("*/config.yaml"))
    if runs:
        others = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
        yield f"{run}: is no run folder; it holds {', '.join(runs[:3])}{others}: name one"
    else:
        yield f"{run}: is no run folder: it has no config.yaml"
