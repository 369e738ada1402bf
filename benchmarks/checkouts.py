"""What runs on digits cost here and in another checkout of this project, in turns.

    git worktree add ../before 86a51a1
    python -m benchmarks.checkouts ../before
    python -m benchmarks.checkouts ../before --seeds 3

The first measures ``python train.py`` from start to closing table; its words may be added. With
``--seeds N`` one process makes N runs as the worker of a table does, without W&B and figures, and
another makes one; a run costs what the two differ by, over N - 1.

In each round both checkouts run, in random order, on one thread. Prints medians and quartiles over
rounds, of CPU seconds with all processes that the command starts, which other work on the machine
disturbs less than the clock; and of the ratio to the other checkout in the same round.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.command_line import Parser

ROOT = Path(__file__).resolve().parents[1]
AS_IN_A_TABLE = ("track.wandb=disabled", "track.figures=false", "runtime.threads=1")


def cpu_seconds(checkout: Path, words: Sequence[str]) -> float:
    """Run ``train.py`` of a checkout in a new folder; return the CPU seconds of all its processes.

    Raises:
        subprocess.CalledProcessError: the run has failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "train.py", f"track.root={folder}", *words],
            cwd=checkout,
            env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run_seconds(checkout: Path, words: Sequence[str], *, seeds: int) -> float:
    """Return the CPU seconds of a whole command, or of one more run in its process."""
    if seeds == 1:
        return cpu_seconds(checkout, words)
    many, one = (
        cpu_seconds(checkout, [*AS_IN_A_TABLE, *words, "--seeds", str(number)])
        for number in (seeds, 1)
    )
    return (many - one) / (seeds - 1)


def quartiles(values: Sequence[float], *, digits: int) -> str:
    """Return the median and the quartiles in words."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    """Print one line a round, then the medians."""
    parser = Parser("benchmarks.checkouts", __doc__)
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("words", nargs="*", help="keys of train.py, for both")
    parser.add_numbers(("--rounds", 5, "turns of each checkout"), ("--seeds", 1, "runs of a turn"))
    options = parser.parse_args()
    if not (options.other / "train.py").is_file():
        parser.error(f"{options.other} has no train.py: give a checkout (git worktree add)")
    order, checkouts = random.Random(0), {"here": ROOT, "other": options.other.resolve()}
    found: dict[str, list[float]] = {name: [] for name in checkouts}
    for number in range(options.rounds):
        for name in order.sample(list(checkouts), 2):
            seconds = run_seconds(checkouts[name], options.words, seeds=options.seeds)
            found[name].append(seconds)
        here, other = (found[name][-1] for name in checkouts)
        print(f"round {number + 1}: {here:.2f} s, other {other:.2f} s", flush=True)
    ratios = [a / b for a, b in zip(found["here"], found["other"], strict=True)]
    print(
        f"CPU seconds a run, n = {options.rounds}, median (quartiles): here "
        f"{quartiles(found['here'], digits=2)}, other {quartiles(found['other'], digits=2)}, "
        f"ratio {quartiles(ratios, digits=3)}"
    )


if __name__ == "__main__":
    main()
