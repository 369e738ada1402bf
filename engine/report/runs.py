"""``python -m engine.report.runs``: the runs below a folder, what each is and its result."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.config.arguments import Parser, unknown_options
from engine.config.homes import expanded
from engine.config.load import NOT_IDENTITY, defaults, flatten, load_run_config
from engine.config.messages import one_line, shown
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.report.run_folders import refuse_set_aside, run_folders
from engine.training.files import WriteError, read_json, write_text, writing
from engine.training.run_folder import RunFolder

USAGE = """\
usage: python -m engine.report.runs [FOLDER ...] [--csv FILE]

List the runs below folders (default: runs): data, loss, seed, test balanced accuracy by the rule of
the headline, every other key that was set, and the run folder. Nothing is changed.

  python -m engine.report.runs
  python -m engine.report.runs runs --csv runs.csv

options:
  --csv FILE  write the list to a file that ends in .csv
  -h, --help  this text
"""
OPTIONS = ("--csv", "--help")
# They are columns of their own, or change no number.
LEFT_OUT = ("data.name", "data.path", "loss.name", "seed", *NOT_IDENTITY)


class Line(NamedTuple):
    """One run, as text."""

    data: str
    loss: str
    seed: str
    balanced_accuracy: str
    rule: str
    state: str
    set: str
    folder: str


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    try:
        given = _parse(argv)
        if given.help:
            print(USAGE, end="")
            return 0
        lines = list(_lines(given.folders))
        if given.csv is None:
            _print(lines)
        else:
            with writing(given.csv):
                write_text(given.csv, _csv(lines))
            print(f"written: {given.csv}")
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2
    except WriteError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def line_of(folder: Path) -> Line:
    """Return the line of a run folder.

    Raises:
        ConfigError: its config cannot be read, or it was set aside.
    """
    refuse_set_aside(folder)
    run = RunFolder(folder)
    config = load_run_config(folder, check_named_runs=False)
    summary = read_json(run.summary)
    headline: dict[str, Any] = summary["rules"][summary["headline"]] if summary else {}
    accuracy = headline.get("test", {}).get("balanced_accuracy")
    return Line(
        data=one_line(summary["title"] if summary else _data_of(config)),
        loss=config.loss.name,
        seed=str(config.seed),
        balanced_accuracy="" if accuracy is None else f"{accuracy:.4f}",
        rule=summary["headline"] if summary else "",
        state="finished" if summary else f"{len(run.rows())} of {config.schedule.epochs} epochs",
        set=_set(config),
        folder=str(folder),
    )


def _data_of(config: Config) -> str:
    path = getattr(config.data, "path", None)
    return config.data.name if path is None else Path(path).name


def _set(config: Config) -> str:
    """Return the keys that differ from their defaults, as words of ``train.py``."""
    usual = defaults(config)
    return " ".join(
        f"{key}={shown(value)}"
        for key, value in flatten(config).items()
        if value != usual.get(key) and not key.startswith(LEFT_OUT)
    )


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser("python -m engine.report.runs")
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--csv", type=Path)
    given, unknown = parser.parse_known_intermixed_args(argv)
    given.folders = [expanded(path) for path in given.folders or [Path("runs")]]
    mistakes = unknown_options(unknown, OPTIONS)
    if not given.help:
        mistakes += [f"{path}: no such folder" for path in given.folders if not path.is_dir()]
    if given.csv is not None and given.csv.suffix.lower() != ".csv":
        mistakes.append(f"--csv {given.csv}: expected a file that ends in .csv")
    if mistakes:
        raise ConfigError(mistakes)
    return given


def _lines(folders: Sequence[Path]) -> Iterator[Line]:
    """Yield the runs below ``folders``, sorted; what cannot be read is named and passed over.

    Raises:
        ConfigError: there is no run folder.
    """
    found = run_folders(folders)
    if not found:
        raise ConfigError([f"{folders[0]}: no run folder there"])
    lines = []
    for folder in found:
        try:
            lines.append(line_of(folder))
        except ConfigError as error:
            print(f"passed over: {error.mistakes[0]}", file=sys.stderr)
    yield from sorted(lines)


def _csv(lines: Sequence[Line]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([Line._fields, *lines])
    return text.getvalue()


def _print(lines: Sequence[Line]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*(name.replace("_", " ") for name in Line._fields), box=SIMPLE_HEAD)
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    # As wide as its paths: a shortened one names nothing.
    Console(highlight=False, soft_wrap=True, width=10_000).print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
