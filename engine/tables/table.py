"""A table from results lines: means over seeds, paired differences, published numbers beside.

``python -m engine.tables experiments/results/digits_lt.jsonl``; ``--help`` says the rest.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from engine.config.components import ROOT
from engine.config.mistakes import ConfigError, nearest
from engine.config.selection_rules import catalogue

if TYPE_CHECKING:
    from engine.tables.aggregate import Block, Wanted
    from engine.tables.layout import Sheet
    from engine.tables.record import RunRecord
    from engine.tables.table_file import Grid
    from engine.tables.table_file import Published as Reference

PAPERS = ROOT / "experiments" / "papers"
RESULTS = ROOT / "experiments" / "results"

USAGE = """\
usage: python -m engine.tables RESULTS.jsonl | TABLE.yaml [options]

Print a table from the lines that reproduce.py wrote: a row for each method, a block for
each setting, and under it what a reader has to know.

  python -m engine.tables experiments/papers/digits_lt.yaml
  python -m engine.tables experiments/results/digits_lt.jsonl --rule last --format latex
  python -m engine.tables experiments/papers/ldam_drw.yaml --metric accuracy
  python -m engine.tables experiments/results/digits_lt.jsonl --command ldam_drw/"factor 50"
  python -m engine.tables experiments/results/digits_lt.jsonl --figure digits_lt.pdf
  python -m engine.tables --readme

How to read it:
  mean ± std   over runs that differ in their seeds alone; std with n - 1
  difference   to the baseline row, paired by seed and subset, and its 95 % interval: the wider of
               Student's t and the studentized bootstrap, which keeps its promise at n = 5
  bold         that interval excludes 0 and n >= 5; n counts subsets where there are five, else
               seeds, since runs on one subset share its luck
  oracle       the best test epoch, which most public code reports; only ever beside, with the gap
  †            a published number that is not of the same experiment; the note says why
  –            undefined: an empty group of classes, no run, no such rule

options:
  --rule R            selection rule of evaluate.rules (default: the table's, else the runs'
                      headline)
  --baseline ROW      row to compare with (default: the table's, else cross_entropy)
  --metric M          this metric alone, settings side by side; accuracy has published numbers
                      in brackets
  --format F          terminal, markdown, latex or csv (default: terminal)
  --command ROW[/S]   print the commands that make this row's runs again (in setting S), and stop
  --figure FILE       draw balanced accuracy, head and tail of every row: .png or .pdf
  --readme            write the tables of all committed results into README.md
  -h, --help          this text
"""
OPTIONS = tuple(re.findall(r"--[a-z]+", USAGE.partition("options:")[2]))
WIDE = 1000
"""Columns of characters where output goes to a file."""

FORMATS = ("terminal", "markdown", "latex", "csv")


@dataclass(frozen=True)
class Table:
    """The lines of a table, and its description where there is one."""

    records: list[RunRecord]
    grid: Grid | None

    @property
    def references(self) -> tuple[Reference, ...]:
        """The same table in the literature."""
        return self.grid.published if self.grid else ()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([f"{message}; see python -m engine.tables --help"])


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    try:
        given = _parse(argv)
        if given.help:
            print(USAGE, end="")
            return 0
        if given.readme:
            from engine.tables.readme import write

            print("README.md: " + ("rewritten" if write() else "up to date"))
            return 0
        table = read_table(given.source)
        if given.command:
            from engine.tables.commands import commands

            print(*commands(table.records, given.command), sep="\n")
            return 0
        _print(table, given)
        return 0
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2


def _print(table: Table, given: argparse.Namespace) -> None:
    from engine.tables import formats

    blocks = blocks_of(table, rule=given.rule, baseline=given.baseline)
    if given.figure is not None:
        from engine.tables.dot_plot import save

        save(blocks, given.figure)
        print(f"{given.figure}: written")
        return
    if given.format == "csv":
        print(formats.csv(blocks, table.references), end="")
        return
    sheets = sheets_of(blocks, table.references, metric=given.metric)
    if given.format == "terminal":
        show(sheets)
    else:
        written = formats.markdown if given.format == "markdown" else formats.latex
        print(written(sheets), end="")


def show(sheets: Sequence[Sheet]) -> None:
    """Print sheets on the terminal; in a file they are never folded."""
    from rich.console import Console

    from engine.tables import formats

    width = None if sys.stdout.isatty() else WIDE
    formats.terminal(sheets, Console(highlight=False, width=width))


def sheets_of(
    blocks: Sequence[Block], references: Sequence[Reference], *, metric: str | None = None
) -> list[Sheet]:
    """A sheet for each block, or one of a single metric over all of them.

    Raises:
        ConfigError: no such metric.
    """
    from engine.tables.aggregate import METRICS
    from engine.tables.layout import sheet_of
    from engine.tables.overview import overview_of

    if metric is None:
        return [sheet_of(block, references) for block in blocks]
    if metric not in METRICS:
        hint = nearest(metric, METRICS)
        raise ConfigError([f"--metric {metric}: unknown{hint}; one of {' | '.join(METRICS)}"])
    return [overview_of(blocks, metric, references)]


def blocks_of(table: Table, *, rule: str | None = None, baseline: str | None = None) -> list[Block]:
    """The blocks of a table as its description wants them, options first.

    Raises:
        ConfigError: no such baseline, or runs whose headlines differ where no rule is named.
    """
    from engine.tables.aggregate import blocks

    return blocks(table.records, _wanted(table.grid, rule=rule, baseline=baseline))


def _wanted(grid: Grid | None, *, rule: str | None, baseline: str | None) -> Wanted:
    from engine.tables.aggregate import Wanted

    if grid is None:
        return Wanted(rule=rule, baseline=baseline)
    return Wanted(
        rule=rule or grid.rule,
        baseline=baseline or grid.baseline,
        methods=tuple(grid.methods),
        settings=tuple(grid.settings),
        pairs=tuple(grid.seed_pairs),
        notes=(" ".join(grid.notes.split()),) if grid.notes else (),
    )


def read_table(source: Path) -> Table:
    """Read results lines, given themselves or by the YAML file that describes their table.

    Raises:
        ConfigError: no such file, no line in it, or a line that is none.
    """
    from engine.tables.record import read
    from engine.tables.table_file import read_grid

    if source.suffix == ".jsonl":
        results, description = source, PAPERS / f"{source.stem}.yaml"
    else:
        results, description = RESULTS / f"{source.stem}.jsonl", source
    grid = read_grid(description) if description == source or description.exists() else None
    if not results.exists():
        how = "" if grid is None else f"; python reproduce.py {source} makes it"
        raise ConfigError([f"{results}: no such file{how}"])
    records = read(results)
    if not records:
        raise ConfigError([f"{results}: no results yet"])
    tables = sorted({record.table for record in records})
    if len(tables) > 1:
        raise ConfigError([f"{results}: lines of several tables: {', '.join(tables)}"])
    return Table(records, grid)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("source", nargs="?", type=Path)
    parser.add_argument("--rule")
    parser.add_argument("--baseline")
    parser.add_argument("--metric")
    parser.add_argument("--format")
    parser.add_argument("--command")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--readme", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    given, unknown = parser.parse_known_args(argv)
    if given.help:
        return given
    if mistakes := [*_unknown(unknown), *_mistakes(given)]:
        raise ConfigError(mistakes)
    given.format = given.format or "terminal"
    return given


def _unknown(words: Sequence[str]) -> list[str]:
    return [
        f"{word}: unknown option{nearest(word, OPTIONS)}"
        if word.startswith("-")
        else f"{word}: one table at a time"
        for word in words
    ]


def _mistakes(given: argparse.Namespace) -> list[str]:
    found = []
    if given.source is None and not given.readme:
        found.append("expected results, such as experiments/results/digits_lt.jsonl")
    elif given.source is not None and given.source.suffix not in (".jsonl", ".yaml", ".yml"):
        found.append(f"{given.source}: expected a .jsonl file of results or the .yaml of a table")
    if given.rule == "oracle":
        found.append(
            "--rule oracle: it chooses by the test set, and is only shown beside; "
            + " | ".join(catalogue())
        )
    elif given.rule is not None and given.rule not in catalogue():
        hint = nearest(given.rule, catalogue())
        found.append(f"--rule {given.rule}: unknown{hint}; one of {' | '.join(catalogue())}")
    if given.format is not None and given.format not in FORMATS:
        found.append(f"--format {given.format}: one of {' | '.join(FORMATS)}")
    if given.figure is not None and given.figure.suffix not in (".png", ".pdf"):
        found.append(f"--figure {given.figure}: expected a name that ends in .png or .pdf")
    values = vars(given)
    modes = [option for option in ("command", "figure", "readme") if values[option]]
    found += [f"--{other}: has no effect with --{modes[0]}" for other in modes[1:]]
    if given.metric is not None and given.format == "csv":
        found.append(f"--metric {given.metric}: has no effect with --format csv, which has all")
    for option in ("rule", "baseline", "metric", "format", "source"):
        is_used = modes[:1] == ["figure"] and option not in ("format", "metric")
        is_used = is_used or (modes[:1] == ["command"] and option == "source")
        if modes and values[option] is not None and not is_used:
            name = option if option == "source" else f"--{option}"
            found.append(f"{name} {values[option]}: has no effect with --{modes[0]}")
    return found
