"""What ``analyze.py RUN`` costs here and in another checkout of this project, in turns.

    git worktree add ../before 8be1ecf
    python -m benchmarks.analyze ../before runs/digits/0123456789ab

From the start of the process to its end, figures included, on one thread. In each round both
checkouts analyze the run into a folder of their own, in random order. Prints medians and quartiles
over rounds, of the clock and of CPU seconds, which other work on the machine disturbs less, and of
the ratio to the other checkout in the same round.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.checkouts import ROOT, quartiles
from benchmarks.command_line import Parser
from benchmarks.timing import Cost


def cost(checkout: Path, run: Path) -> Cost:
    """Analyze a run by a checkout; return the seconds of the process.

    Raises:
        subprocess.CalledProcessError: the analysis has failed.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "analyze.py", str(run), "--out", folder],
            cwd=checkout,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall=wall, cpu=cpu)


def main() -> None:
    """Print one line a round, then the medians."""
    parser = Parser("benchmarks.analyze", __doc__)
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_numbers(("--rounds", 5, "turns of each checkout"))
    options = parser.parse_args()
    for folder, file in ((options.other, "analyze.py"), (options.run, "summary.json")):
        if not (folder / file).is_file():
            parser.error(f"{folder} has no {file}")
    order, run = random.Random(0), options.run.resolve()
    checkouts = {"here": ROOT, "other": options.other.resolve()}
    found: dict[str, list[Cost]] = {name: [] for name in checkouts}
    for number in range(options.rounds):
        for name in order.sample(list(checkouts), 2):
            found[name].append(cost(checkouts[name], run))
        here, other = (found[name][-1] for name in checkouts)
        print(f"round {number + 1}: {here.cpu:.2f} s CPU, other {other.cpu:.2f} s", flush=True)
    for clock in Cost._fields:
        here, other = ([getattr(one, clock) for one in found[name]] for name in checkouts)
        ratios = [a / b for a, b in zip(here, other, strict=True)]
        print(
            f"{clock}, n = {options.rounds}, median (quartiles): here {quartiles(here, digits=2)} "
            f"s, other {quartiles(other, digits=2)} s, ratio {quartiles(ratios, digits=3)}"
        )


if __name__ == "__main__":
    main()
