"""Which sampler finds how much in n trials: TPE, a Gaussian process, and random draws.

Every sampler searches the same space with the same trials and epochs, in several repetitions. In
one repetition all samplers train with the same seed; what differs is where they look. Nothing is
pruned and nothing is queued. Each trial is a real run; a study that is whole is not run again, so
the same command goes on with a bench that was stopped.

Writes to the folder of --out: samplers.jsonl (one line a study, as it ends), samplers.csv (the best
so far, trial by trial) and samplers.png/.pdf; prints the table.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.command_line import Parser
from engine.config.components import ROOT
from engine.config.mistakes import ConfigError
from engine.report.figures import save
from engine.report.statistics import mean_and_std, paired_difference, spread
from engine.training.files import write_text
from engine.tuning.figures.best_of_n import best_so_far
from engine.tuning.figures.best_of_n_figures import repetitions, values_of
from engine.tuning.search import Search
from engine.tuning.search.checks import checked
from engine.tuning.search.reader import read_search_file
from engine.tuning.search.schema import Confirm, Pruner, Sampler
from engine.tuning.study.session import open_session, work_on
from engine.tuning.study.trials import Objective, objectives

SAMPLERS = ("random", "tpe", "gp")  # the first is what the others are compared with
SEARCH = ROOT / "experiments" / "search" / "softmax_focal.yaml"
QUICK = {"trials": 3, "epochs": 1, "repetitions": 2}


class Study(NamedTuple):
    """One sampler's search in one repetition."""

    sampler: str
    repetition: int
    search: Search


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser("benchmarks.samplers", __doc__)
    parser.add_numbers(
        ("--trials", 20, "trials of a search"),
        ("--epochs", 15, "epochs of a trial"),
        ("--repetitions", 5, "searches of each sampler"),
    )
    parser.add_argument("--quick", action="store_true", help="3 trials, 1 epoch, 2 repetitions")
    parser.add_argument(
        "--search", type=Path, default=SEARCH, help="search file (softmax_focal.yaml)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/samplers"), help="(runs/samplers)")
    parser.add_argument("words", nargs="*", help="key=value words of the base config")
    given = parser.parse_args(argv)
    if given.quick:
        vars(given).update(QUICK)
    return given


def studies(given: argparse.Namespace) -> list[Study]:
    """Return every search, one repetition after the other."""
    file = read_search_file(given.search)
    budget = file.budget.model_copy(update={"trials": given.trials, "epochs": given.epochs})
    shared: dict[str, Any] = {"budget": budget, "pruner": Pruner(), "enqueue": ()}
    file = file.model_copy(update={**shared, "confirm": Confirm(top=0)})
    quiet = ("track.wandb=disabled", "track.figures=false", f"track.root={given.out}")
    found = []
    for repetition in range(given.repetitions):
        for name in SAMPLERS:
            sampler = Sampler.model_validate({"name": name, "seed": repetition})
            search = Search(
                file=file.model_copy(update={"sampler": sampler}),
                path=given.search,
                files=(),
                overrides=(*quiet, f"seed={repetition}", *given.words),
                study=f"{name}-{given.epochs}-{repetition}",
            )
            found.append(Study(name, repetition, search))
    return found


def values_found(study: Study, *, console: Console, command: Sequence[str]) -> list[float]:
    """Run one search to its end, or take it from its folder; return its trials' values.

    TPE and the Gaussian process begin with the same random draws as the random sampler. Their runs
    share one folder, so that what one has trained the next need not.
    """
    session = open_session(study.search, checked(study.search), console=console)
    session.folder.runs = session.folder.path.parent / "trials"
    work_on(session, command=command)
    trials = session.study.get_trials(deepcopy=False)
    goal = objectives(session.study, study.search.file.metrics)[0]
    return values_of(trials, goal)[: study.search.file.budget.trials]


def table(found: dict[str, npt.NDArray[np.float64]], goal: Objective) -> Table:
    """Tabulate the mean best half way and at the end, there with the gap to the first sampler."""
    first, *_ = found
    most = min(runs.shape[1] for runs in found.values())
    numbers = sorted({max(1, most // 2), most})
    shown = Table(box=SIMPLE_HEAD, title_justify="left", title=f"best {goal.metric} of n trials")
    shown.add_column("sampler", no_wrap=True)
    for n in numbers:
        shown.add_column(f"n = {n}", justify="right", no_wrap=True)
    shown.add_column(f"minus {first}", no_wrap=True)
    best = {name: _running_best(runs, goal) for name, runs in found.items()}
    for name, runs in best.items():
        cells = [_spread(runs[:, n - 1]) for n in numbers]
        shown.add_row(name, *cells, _versus(runs[:, most - 1], best[first][:, most - 1]))
    shown.caption = f"minus {first}: at n = {most}, 95 % interval; = not distinguishable"
    shown.caption_justify = "left"
    return shown


def _running_best(runs: npt.NDArray[np.float64], goal: Objective) -> npt.NDArray[np.float64]:
    return np.array([best_so_far(run.tolist(), direction=goal.direction) for run in runs])


def _spread(values: npt.NDArray[np.float64]) -> str:
    return spread(mean_and_std(values.tolist()))


def _versus(ours: npt.NDArray[np.float64], baseline: npt.NDArray[np.float64]) -> str:
    if ours is baseline or np.shares_memory(ours, baseline):
        return "–"
    number = min(len(ours), len(baseline))
    difference = paired_difference(ours[:number].tolist(), baseline[:number].tolist())
    text = f"{difference.mean:+.3f}"
    if difference.low is not None and difference.high is not None:
        text += f" [{difference.low:+.3f}, {difference.high:+.3f}]"
    return text if difference.is_distinguishable else f"{text} ="


def csv_text(found: dict[str, npt.NDArray[np.float64]], goal: Objective) -> str:
    """Return the best so far by sampler, repetition and trial as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["sampler", "repetition", "n", "best_so_far"])
    for name, runs in found.items():
        for repetition, run in enumerate(_running_best(runs, goal).tolist()):
            rows.writerows([name, repetition, n, value] for n, value in enumerate(run, start=1))
    return text.getvalue()


def main(argv: Sequence[str]) -> int:
    """Search, write and draw after every study; return the exit code."""
    given = arguments(argv)
    console, silent = Console(highlight=False, soft_wrap=True), Console(quiet=True)
    lines: list[dict[str, Any]] = []
    try:
        todo = studies(given)
        goal = Objective(todo[0].search.file.metrics[0], todo[0].search.file.directions[0])
        for number, study in enumerate(todo, start=1):
            values = values_found(study, console=silent, command=["benchmarks.samplers", *argv])
            lines.append(
                {"sampler": study.sampler, "repetition": study.repetition, "values": values}
            )
            text = "".join(json.dumps(line) + "\n" for line in lines)
            write_text(given.out / "samplers.jsonl", text)
            best = best_so_far(values, direction=goal.direction)[-1]
            console.print(f"{number}/{len(todo)}  {study.search.study}  best {best:.4f}")
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2
    found = {
        name: np.array([line["values"] for line in lines if line["sampler"] == name])
        for name in SAMPLERS
    }
    title = f"{given.search.stem}: {given.trials} trials of {given.epochs} epochs"
    save(repetitions(found, goal, title=title), given.out / "samplers")
    write_text(given.out / "samplers.csv", csv_text(found, goal))
    console.print(table(found, goal))
    console.print(f"{given.out / 'samplers.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
