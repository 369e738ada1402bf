"""The command line of ``reproduce.py``: which runs of which table, made how."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from engine.config.cores import num_cores
from engine.config.mistakes import ConfigError, nearest
from engine.tables.cells import Cell, select, with_stages
from engine.tables.table_file import RESULTS, TableFile, read_table_file, schema
from engine.tables.tuned import planned_runs

if TYPE_CHECKING:
    from engine.tables.task import Task

USAGE = """\
usage: python reproduce.py TABLE.yaml [options]

Make a table: run what is missing of methods x settings x seeds, add a line to
experiments/results/<table>.jsonl as each run finishes, print the table. Run the same command to
resume what was cut off; two of them share the work, and no run is made twice. A row that starts
from another (after: ROW) waits for that row's run of the same setting and seeds.

  python reproduce.py experiments/papers/digits_lt.yaml --list
  python reproduce.py experiments/papers/digits_lt.yaml --workers 2 --time-limit 20m
  python reproduce.py experiments/papers/digits_lt.yaml --only ldam_drw --seeds 1
  python reproduce.py experiments/papers/digits_small.yaml --check

options:
  --list              what is done and what is to do, and stop
  --only M[/S]        this method, or this method in this setting, with what it starts from
  --seeds N           the first N of the table's seeds (pairs of seeds where pairing: paired)
  --workers N         processes that share the table and the cores (default 1)
  --submit FILE       hand the work to a cluster, as jobs that share the table; FILE says how many
                      and what each gets, such as experiments/clusters/slurm.yaml
  --time-limit TIME   stop after this time, at the end of an epoch: 90s, 20m, 1.5h
  --renew             run again what other code has made
  --check             make the runs again in a place of their own (<track.root>/check/..., one for
                      each processor and set of versions) and compare them with the committed
                      lines: to the last digit, or, on another processor, row by row; exit code 1
                      if they differ
  --tune              of a table with tune: SEARCH.yaml, before its runs: tune every row in every
                      setting, each with the same number of trials, and write what was found to
                      experiments/tuned/<table>.yaml; two of these commands share the work
  --cost              print the table with columns for what training has cost
  --results FILE      another file of lines
  -h, --help          this text
"""
OPTIONS = tuple(re.findall(r"--[a-z-]+", USAGE.partition("options:")[2]))
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Plan:
    """A table, the runs of it that were asked for, and how they are to be made.

    Attributes:
        table: the file.
        cells: the runs that were asked for.
        every: all runs of the table.
        task: what counts as done, where lines go, when to stop.
        workers: processes that share the runs.
        committed: the file of lines that --check compares with.
    """

    table: TableFile
    cells: list[Cell]
    every: list[Cell]
    task: Task
    workers: int
    committed: Path


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is a mistake like any other.

    Args:
        program: what the user has called, for the hint at its help.
    """

    def __init__(self, program: str) -> None:
        super().__init__(prog=program, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise the mistake in place of argparse's own exit."""
        raise ConfigError([f"{message}; see {self.prog} --help"])


def usage() -> str:
    """Return the help text: how to call it, and what a table file holds."""
    heading = "A table file is YAML; a word is key=value of train.py, or the path of a YAML file:"
    return f"{USAGE}\n{heading}\n{schema()}"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Split the command line.

    Raises:
        ConfigError: an option that does not exist, or a value that it does not take.
    """
    parser = Parser("python reproduce.py")
    parser.add_argument("table", nargs="?", type=Path)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--submit", type=Path)
    parser.add_argument("--time-limit")
    parser.add_argument("--renew", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--results", type=Path)
    parser.add_argument("-h", "--help", action="store_true")
    given, unknown = parser.parse_known_args(argv)
    mistakes = [
        f"{word}: unknown option{nearest(word, OPTIONS)}"
        if word.startswith("-")
        else f"{word}: one table at a time, a YAML file"
        for word in unknown
    ]
    if given.table is None and not given.help:
        mistakes.append("expected a table, such as experiments/papers/digits_lt.yaml")
    for option in ("seeds", "workers"):
        value = getattr(given, option)
        if value is not None and value < 1:
            mistakes.append(f"--{option} {value}: expected a whole number >= 1")
    try:
        given.seconds = _seconds(given.time_limit)
    except ConfigError as error:
        mistakes += error.mistakes
    if given.tune:
        mistakes += [f"--{name}: has no effect with --tune" for name in _set_beside_tune(given)]
    for option in ("list", "submit"):
        if given.cost and getattr(given, option):
            mistakes.append(f"--cost: has no effect with --{option}, which prints no table")
    if given.check and given.renew:
        mistakes.append("--renew: has no effect with --check, which makes every run again")
    if given.list and given.time_limit is not None:
        mistakes.append("--time-limit: has no effect with --list, which runs nothing")
    if mistakes:
        raise ConfigError(mistakes)
    return given


def _set_beside_tune(given: argparse.Namespace) -> list[str]:
    asked = {key.replace("_", "-"): value for key, value in vars(given).items() if value}
    beside = asked.keys() - {"table", "tune", "help", "seconds"}
    return sorted(beside - ({"workers"} if given.workers == 1 else set()))


def plan_of(given: argparse.Namespace) -> Plan:
    """Read the table and choose from it.

    Raises:
        ConfigError: with every mistake in the table or in what was asked of it.
    """
    from engine.tables.recheck import place  # with NumPy, which --help does not need
    from engine.tables.task import Task

    table = read_table_file(given.table)
    threads = max(1, num_cores() // given.workers)
    every = [cell.with_threads(threads) for cell in planned_runs(table, given.table)]
    results = committed = given.results or RESULTS / f"{table.name}.jsonl"
    if given.check:
        root = place(every)
        every = [cell.with_root(root) for cell in every]
        results = root / f"{table.name}.jsonl"
    chosen = every
    if given.seeds is not None:
        wanted = _first_seeds(table, given.seeds)
        chosen = [cell for cell in chosen if (cell.seed, cell.subset_seed) in wanted]
    if given.only is not None:
        method, slash, setting = given.only.partition("/")
        chosen = select(chosen, method.strip(), setting.strip() if slash else None)
    chosen = with_stages(chosen)
    deadline = None if given.seconds is None else time.monotonic() + given.seconds
    task = Task(table.name, results, renew=given.renew or given.check, deadline=deadline)
    return Plan(table, chosen, every, task, given.workers, committed)


def _first_seeds(table: TableFile, num: int) -> set[tuple[int, int]]:
    if num > len(table.seeds):
        raise ConfigError([f"--seeds {num}: the table has {len(table.seeds)}"])
    return {pair for pair in table.seed_pairs if pair[0] in table.seeds[:num]}


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise ConfigError([f"--time-limit {text}: expected a time such as 90s, 20m or 1.5h"])
    return float(found[1]) * UNITS[found[2]]
