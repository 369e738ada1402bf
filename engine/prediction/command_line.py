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
usage: python predict.py RUN IMAGES ... [options], or RUN --export FILE [options]

Predict images with the model of a run folder. IMAGES are files, folders that are searched with all
folders in them, or lists: a .txt file with a path on each line, or a .csv file with the column
file, whose paths start from the list's own folder. Images are decoded, resized and normalised as
the run's own were.

  python predict.py runs/photos/0123456789ab new_photos
  python predict.py runs/photos/0123456789ab a.jpg b.png --rule last
  python predict.py runs/photos/0123456789ab new_photos --csv predicted.csv
  python predict.py runs/photos/0123456789ab new_photos --tau 1 --features features.npz
  python predict.py runs/photos/0123456789ab new_photos --sets class-conditional --csv sets.csv
  python predict.py runs/photos/0123456789ab labelled_photos --evaluate --json scores.json
  python predict.py runs/photos/0123456789ab --export model.pt2

The folder is runs/<name>/<fingerprint>: train.py prints it at the end, and track.name=photos sets
the name.
A run with data.size resizes an image's shorter side to it and takes the centre square. Any other
run takes images of its own size alone: 8x8 for digits, 28x28 for fashion_mnist, 32x32 for CIFAR.
Digits and Fashion-MNIST are greyscale, light strokes on black. A run on infrared_solar takes files
of 24x40, and one on chula_rbc12 windows of data.window pixels a side around one cell.

A run of two classes predicts the more probable one. The probability from which on the positive
class has the best F1 on validation, at the class shares of the whole training list, is printed too.

With --evaluate IMAGES are folders of class folders (labelled_photos/cat/*), or CSV files with the
columns file and class. Classes are matched by name; what has no match is left out and said.

options:
  --evaluate          compare with the true classes: accuracy, balanced accuracy, recall by class,
                      many/medium/few by the run's training images, NLL, ECE, confusion and the rest
                      of the metrics; nothing in the run folder is changed
  --json FILE         with --evaluate: write all of these numbers
  --csv, --out FILE   write one line per image: file, predicted, probability, with --sets the set,
                      its classes divided by |, then the probability of each class; the table on
                      the screen then ends after 20 images; with --evaluate also the true class, in
                      the column class
  --features FILE     write a .npz file: files, features (N, D), probabilities (N, C), class_names
  --tau T             adjust by T log(share of the training images) after training (Menon et al.
                      2021); in place of the run's own evaluate.logit_adjustment; 0: not adjusted
  --sets WAY          also give each image a set of classes that holds the true one for a share of
                      1 - alpha of images like those of the run's validation split, from whose
                      predictions the thresholds come: marginal, class-conditional,
                      prevalence-adjusted or interpolated (see docs/analysis.md); with --evaluate
                      the share that holds the true class, and the mean size
  --alpha A           with --sets: share of images whose set may miss it, 0.001 to 0.5 (default 0.1)
  --export FILE       write the model, from uint8 images (N, channels, H, W) to probabilities, as
                      .pt2 (torch.export) or .onnx, and check that it says what the run says
  --rule RULE         whose weights: last (the final ones) or val (the best validation epoch);
                      default val where the run has it
  --top N             classes shown of each image (default 3)
  --batch-size N      images at once (default 256)
  --device DEVICE     auto, cpu, cuda or mps (default auto)
  -h, --help          this text

An image that cannot be read is one line on the error output, and the others are predicted. Exit
code: 0 all images were predicted, 1 some could not be or a file could not be written, 2 a mistake
in the command.
"""
OPTIONS = ("--out", *re.findall(r"^  (?:-h, )?(--[a-z-]+)", USAGE, flags=re.MULTILINE))
EXPORTED = (".pt2", ".onnx")
ENDINGS = {"csv": (".csv",), "json": (".json",), "features": (".npz",), "export": EXPORTED}
# What an export has no use for.
OF_IMAGES = ("csv", "json", "features", "sets", "alpha", "top", "batch_size", "device")
SETS = ("marginal", "class-conditional", "prevalence-adjusted", "interpolated")
CHOICES = {"rule": tuple(catalogue()), "device": ("auto", "cpu", "cuda", "mps"), "sets": SETS}
LEAST_ALPHA, MOST_ALPHA = 0.001, 0.5


class Arguments(argparse.Namespace):
    """The parsed command line."""

    words: list[Path]
    csv: Path | None
    json: Path | None
    features: Path | None
    export: Path | None
    tau: float | None
    sets: str | None
    alpha: float | None
    evaluate: bool
    rule: str | None
    top: int | None
    batch_size: int | None
    device: str | None
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
    parser.add_argument("--csv", "--out", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--export", type=Path)
    parser.add_argument("--tau", type=float)
    parser.add_argument("--sets")
    parser.add_argument("--alpha", type=float)
    parser.add_argument("--evaluate", action="store_true")
    parser.add_argument("--rule")
    parser.add_argument("--top", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--device")
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
    if given.export is None:
        yield from _mistakes_of_images(given)
    else:
        yield from _mistakes_of_export(given)
    if given.tau is not None and not 0 <= given.tau < float("inf"):
        yield f"--tau {given.tau:g}: expected a number >= 0"
    for name, choices in CHOICES.items():
        value = getattr(given, name)
        if value is not None and value not in choices:
            hint = nearest(value, choices)
            yield f"--{name} {value}: expected one of {' | '.join(choices)}{hint}"
    for name in ("top", "batch_size"):
        value = getattr(given, name)
        if value is not None and value < 1:
            yield f"--{name.replace('_', '-')} {value}: expected a whole number >= 1"
    yield from _mistakes_of_sets(given)
    if given.evaluate and given.top is not None:
        yield f"--top {given.top}: has no effect with --evaluate"
    if given.json is not None and not given.evaluate:
        yield f"--json {given.json}: has no effect without --evaluate"
    for option in ENDINGS:
        if (file := getattr(given, option)) is not None:
            yield from _mistakes_of_output(file, option, given)


def _mistakes_of_sets(given: Arguments) -> Iterator[str]:
    if given.alpha is None or given.export is not None:
        return
    if given.sets is None:
        yield f"--alpha {given.alpha:g}: has no effect without --sets"
    if not LEAST_ALPHA <= given.alpha <= MOST_ALPHA:
        yield f"--alpha {given.alpha:g}: expected a number from {LEAST_ALPHA:g} to {MOST_ALPHA:g}"


def _mistakes_of_images(given: Arguments) -> Iterator[str]:
    if not given.images:
        yield f"expected images after the run folder {given.run}: files, or folders of them"
    for path in given.images:
        if not path.exists():
            yield f"{path}: no such file or folder"
        elif given.evaluate and not path.is_dir() and path.suffix.lower() != ".csv":
            yield (
                f"{path}: with --evaluate expected a folder of class folders, or a .csv file with "
                "the columns file and class"
            )


def _mistakes_of_export(given: Arguments) -> Iterator[str]:
    """Yield what is asked beside an export, which looks at no image."""
    if given.images:
        yield f"{given.images[0]}: no images are predicted with --export; leave them out"
    if given.evaluate:
        yield "--evaluate: has no effect with --export"
    for option in OF_IMAGES:
        if (value := getattr(given, option)) is not None:
            yield f"--{option.replace('_', '-')} {value}: has no effect with --export"


def _mistakes_of_output(file: Path, option: str, given: Arguments) -> Iterator[str]:
    """Yield why a file cannot be written, or is not to be."""
    path = file.expanduser().absolute()
    if file.suffix.lower() not in ENDINGS[option]:
        yield f"--{option} {file}: expected a file that ends in {' or '.join(ENDINGS[option])}"
    elif path.is_dir() or not path.parent.is_dir():
        yield f"--{option} {file}: expected a file in a folder that is there"
    elif path.resolve().is_relative_to(given.run.resolve()):
        yield f"--{option} {file}: is in the run folder, which stays as it is; name another place"
    elif path.resolve() in [image.resolve() for image in given.images]:
        yield f"--{option} {file}: is what to predict, and would be lost; name another file"


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
        yield f"{run}: is not a run folder; it holds {', '.join(runs[:3])}{others}: name one"
    else:
        yield f"{run}: is not a run folder: it has no config.yaml"
