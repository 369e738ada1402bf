"""``python -m engine.report.intervals``: how sure the test numbers of one finished run are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.config.arguments import Parser, unknown_options
from engine.config.homes import expanded
from engine.config.messages import counted, one_line
from engine.config.mistakes import ConfigError
from engine.report.cluster_bootstrap import DRAWS, FEW, Intervals, cluster_intervals
from engine.report.predictions_file import read_predictions_file

USAGE = """\
usage: python -m engine.report.intervals RUN_FOLDER [--rule RULE]

Print test accuracy, balanced accuracy, many, medium and few, and the recall of each class of a
finished run, each with a 95 % interval over the test images. Where the data set knows which images
belong together (smear, patient), whole groups are resampled. Beside it stand the number of groups
or images behind each number, and of how many equal ones they are worth. Where these are fewer than
20, or no resample differs (a recall of 0 or 1), the interval is at least Wilson's for so many.
Nothing is changed. The interval says what another test split of this kind would give the same
weights; other seeds are not in it.

  python -m engine.report.intervals runs/chula_rbc12/0123456789ab

options:
  --rule RULE  a selection rule; default: that of the headline
  -h, --help   this text
"""
OPTIONS = ("--rule", "--help")


def of_run(run: Path, *, rule: str | None) -> tuple[Intervals, tuple[str, ...]]:
    """Return the intervals of a finished run and the names of its classes.

    Raises:
        ConfigError: no finished run, or no such rule.
    """
    from engine.training.build import group_limits
    from engine.training.facts import read_facts
    from engine.training.metrics import few_shot_groups
    from engine.training.probabilities import Probabilities
    from engine.training.trained import load_run

    loaded = load_run(run, rule=rule)
    path = run / "predictions" / f"test.{loaded.rule}.npz"
    if not path.is_file():
        raise ConfigError([f"{path}: is missing; run the command of this run to finish it"])
    stored, facts = read_predictions_file(path), read_facts(run)
    found = Probabilities(stored.logits, loaded.readout, is_single=facts["num_outputs"] == 1)
    predictions = np.concatenate([block.argmax(axis=1) for block in found.blocks()])
    counts = np.array(facts["class_counts"])
    groups = few_shot_groups(counts, group_limits(loaded.config))
    masks = {name: mask for name, mask in groups.items() if mask.any()}
    every = {"balanced accuracy": np.ones(len(counts), dtype=bool), **masks}
    intervals = cluster_intervals(
        stored.targets, predictions, stored.groups, masks=every, num_classes=len(counts)
    )
    return intervals, loaded.class_names


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    try:
        given = _parse(argv)
        if given.help:
            print(USAGE, end="")
            return 0
        found, names = of_run(expanded(given.run), rule=given.rule)
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2
    _print(found, names)
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser("python -m engine.report.intervals")
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--rule")
    given, unknown = parser.parse_known_intermixed_args(argv)
    options = [word for word in unknown if word.startswith("-")]
    mistakes = unknown_options(options, OPTIONS)
    if unknown and not options:
        mistakes.append(f"{unknown[0]}: one run folder at a time")
    if given.run is None and not given.help:
        mistakes.append("a run folder is needed; see python -m engine.report.intervals --help")
    if mistakes:
        raise ConfigError(mistakes)
    return given


def _print(found: Intervals, names: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    what = "groups" if found.are_groups else "images"
    table = Table(box=SIMPLE_HEAD)
    table.add_column("test")
    for heading in ("value", "low", "high", what, "effective"):
        table.add_column(heading, justify="right")
    named = [*found.means.items(), *zip(map(one_line, names), found.recall, strict=True)]
    for name, (value, low, high, num, effective) in named:
        if not np.isnan(value):
            numbers = (f"{number:.3f}" for number in (value, low, high))
            table.add_row(Text(name), *numbers, f"{num:,}", f"{effective:,.1f}")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    number = counted(found.num_clusters, what[:-1], what)
    console.print(Text(f"95 % bootstrap intervals over {number}, {DRAWS:,} resamples"))
    console.print(
        Text(
            f"effective: so many {what} of equal weight; below {FEW}, or where no resample "
            "differs, at least as wide as Wilson's interval for so many"
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
