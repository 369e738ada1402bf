"""``python -m engine.report.page``: the page of finished runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config.arguments import Parser, unknown_options
from engine.config.mistakes import ConfigError

if TYPE_CHECKING:
    from engine.report.reading import Run

USAGE = """\
usage: python -m engine.report.page RUN ...

Write report.html into the folders of finished runs: what made the numbers, results by selection
rule, curves, classes, confusions and the most confident mistakes, in one file that needs no
network. RUN is a run folder, or a folder of them. A new run writes its own with track.report=true.

  python -m engine.report.page runs/digits/0123456789ab
  python -m engine.report.page runs/digits --no-images

options:
  --no-images  leave out the images of mistakes: the data set is then not read
  -h, --help   this text

Exit code: 0 all pages were written, 1 some could not be, 2 a mistake in the command.
"""
OPTIONS = ("--no-images", "--help")


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    try:
        given = _parse(argv)
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2
    if given.help:
        print(USAGE, end="")
        return 0
    failed = False
    for folder in given.folders:
        try:
            print(_write(folder, with_images=not given.no_images))
        except (ConfigError, OSError) as error:
            print(error, file=sys.stderr)
            failed = True
    return 1 if failed else 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    from engine.report.reading import run_folders

    parser = Parser("python -m engine.report.page")
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--no-images", action="store_true")
    given, unknown = parser.parse_known_intermixed_args(argv)
    mistakes = unknown_options(unknown, OPTIONS)
    given.folders = run_folders(given.runs)
    if not given.help:
        mistakes += _mistakes(given)
    if mistakes:
        raise ConfigError(mistakes)
    return given


def _mistakes(given: argparse.Namespace) -> Iterator[str]:
    if not given.runs:
        yield "expected a run folder, as in: python -m engine.report.page runs/digits/0123456789ab"
    for path in given.runs:
        if not path.expanduser().is_dir():
            yield f"{path}: no such folder"
    if given.runs and not given.folders:
        yield f"{given.runs[0]}: no run folder there"


def _write(folder: Path, *, with_images: bool) -> Path:
    from engine.report.page import write_page
    from engine.report.reading import read_run
    from engine.training.repeats import repeats_in_memory

    run = read_run(folder)
    if not with_images:
        return write_page(folder)
    try:
        dataset = _dataset(run)
    except (ConfigError, ValueError) as error:  # a DataError is a ValueError
        return write_page(folder, remark=f"The images of mistakes are not shown: {error}")
    return write_page(folder, images=dataset.test.images, repeats=repeats_in_memory(dataset))


def _dataset(run: Run) -> Any:
    """Return the splits, as they were in the run.

    Raises:
        ConfigError: the data are not at hand any more, or have changed.
    """
    from engine.training.setup import load_dataset

    on_hand = run.config.data.model_copy(update={"download": False})
    dataset = load_dataset(run.config.model_copy(update={"data": on_hand}))
    if dataset.split_fingerprint != run.summary.split_fingerprint:
        raise ConfigError(["the data have changed since the run"])
    return dataset


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
