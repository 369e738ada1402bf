"""How far other ways to run a recipe move its result, against what the seed moves it.

    python -m benchmarks.variants experiments/digits_lt.yaml --only bfloat16 compile

Trains every variant with the same seeds: the recipe as it is (float32, eager, one thread), and with
one thing about how it runs changed. `two processes` share every batch, and BatchNorm sees half of
it; in `four pieces` it sees a quarter. What follows the options are YAML files and key=value pairs,
as for train.py. Runs that are finished are taken as they are, and cut-off ones go on, so the same
command completes a table.

Prints, for each variant, the test balanced accuracy (rule `last`; mean, standard deviation over
seeds), the differences from the recipe as it is, seed by seed, and seconds of training. A
difference far below the standard deviation over seeds is not one that a table can show.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import train
from benchmarks.command_line import Parser
from engine.config.components import ROOT
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.report.statistics import mean_and_std, spread
from engine.training.summary import Summary

AS_IT_IS = "float32"
VARIANTS = {
    AS_IT_IS: (),
    "deterministic": ("runtime.deterministic=true",),
    "two threads": ("runtime.threads=2",),
    "two processes": (),
    "bfloat16": ("runtime.precision=bfloat16",),
    "float16": ("runtime.precision=float16",),
    "compile": ("runtime.compile=true",),
    "four pieces": ("optim.accumulate=4",),
}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser("benchmarks.variants", __doc__)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N - 1 (3)")
    parser.add_argument(
        "--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="variants (all)"
    )
    parser.add_argument(
        "--root", type=Path, default=Path("runs/variants"), help="where runs go (runs/variants)"
    )
    parser.add_argument("recipe", nargs="*", help="YAML files and key=value pairs")
    return parser.parse_intermixed_args(argv)


def summaries(given: argparse.Namespace, variant: str) -> list[Summary]:
    """Train one variant with every seed, in a folder of its own: most share an identity."""
    files = [word for word in given.recipe if "=" not in word]
    words = [word for word in given.recipe if "=" in word]
    usual = ["runtime.threads=1", "track.wandb=disabled", "track.figures=false"]
    root = given.root / variant.replace(" ", "_")
    own = [*words, *VARIANTS[variant], f"track.root={root}"]
    keys = {word.partition("=")[0] for word in own}
    usual = [word for word in usual if word.partition("=")[0] not in keys]
    found = []
    for seed in range(given.seeds):
        of_seed = [*usual, *own, f"seed={seed}"]
        if variant == "two processes":  # what they have finished is read below
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
            script = [str(ROOT / "train.py"), *files, *of_seed]
            subprocess.run([sys.executable, *launch, *script], check=True)
        found.append(train.run(load(files, of_seed)))
    return found


def accuracies(runs: Sequence[Summary]) -> list[float]:
    """Return the test balanced accuracy of each, by rule `last`."""
    found = [run.rules["last"].test["balanced_accuracy"] for run in runs]
    return [float(value) for value in found if value is not None]


def line(variant: str, runs: Sequence[Summary], base: Sequence[Summary]) -> str:
    """Return one row of the table."""
    values, usual = accuracies(runs), accuracies(base)
    apart = " ".join(f"{a - b:+.3f}" for a, b in zip(values, usual, strict=True))
    seconds = statistics.mean(run.time["training_seconds"] for run in runs)
    return f"{variant:14} {spread(mean_and_std(values))}   {apart:24} {seconds:7.1f}"


def main(argv: Sequence[str]) -> int:
    """Train what is missing; print the table; return the exit code."""
    given = arguments(argv)
    try:
        base = summaries(given, AS_IT_IS)
        found = {name: summaries(given, name) for name in given.only if name != AS_IT_IS}
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2
    print(f"{'':14} balanced acc.   by seed, less {AS_IT_IS:10} seconds")
    for name, runs in {AS_IT_IS: base, **found}.items():
        print(line(name, runs, base))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
