"""``python -m engine.report.page``: the page of finished runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.config.arguments import Parser, unknown_options
from engine.config.homes import expanded
from engine.config.mistakes import ConfigError

USAGE = """\
usage: python -m engine.report.page RUN ...

Write report.html into the folders of finished runs: what made the numbers, what the data are
and their test split can show, results by selection rule, curves, classes, confusions and the most
confident mistakes, in one file that needs no network. RUN is a run folder, or a folder of them. A
new run writes its own with track.report=true.
Of a search the folder of the study is RUN: its trials, what each key did, what was confirmed.
analyze.py --html writes the page of a run with its analysis, and that of a table.

  python -m engine.report.page runs/digits/0123456789ab
  python -m engine.report.page runs/digits --no-images
  python -m engine.report.page runs/digits-softmax_focal

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
    parser = Parser("python -m engine.report.page")
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--no-images", action="store_true")
    given, unknown = parser.parse_known_intermixed_args(argv)
    mistakes = unknown_options(unknown, OPTIONS)
    given.folders = _folders(given.runs)
    if not given.help:
        mistakes += _mistakes(given)
    if mistakes:
        raise ConfigError(mistakes)
    return given


def _folders(given: Sequence[Path]) -> list[Path]:
    """Return studies as they are, and of other folders the runs in them."""
    from engine.report.page.study import is_study
    from engine.report.run_folders import run_folders

    studies = [expanded(path) for path in given if is_study(expanded(path))]
    return [*studies, *run_folders([path for path in given if expanded(path) not in studies])]


def _mistakes(given: argparse.Namespace) -> Iterator[str]:
    if not given.runs:
        yield "expected a run folder, as in: python -m engine.report.page runs/digits/0123456789ab"
    missing = [path for path in given.runs if not expanded(path).is_dir()]
    for path in missing:
        yield f"{path}: no such folder"
    if given.runs and not given.folders and not missing:
        yield f"{given.runs[0]}: no run folder there"


def _write(folder: Path, *, with_images: bool) -> Path:
    from engine.report.page import FILE, html, write_page
    from engine.report.page.run_images import images_or_remark
    from engine.report.page.study import is_study, study_page
    from engine.report.reading import read_run
    from engine.training.files import write_text

    if is_study(folder):
        write_text(folder / FILE, html(study_page(folder)))
        return folder / FILE
    if not with_images:
        return write_page(folder)
    found = images_or_remark(read_run(folder))
    return write_page(folder, test=found.test, remark=found.remark, repeats=found.repeats)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
