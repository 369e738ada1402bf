"""Trials an hour of one worker and of two: ``python -m benchmarks.sweep_workers``.

Every worker has one thread. Sweeps of one and of two workers alternate, and each one's rate is that
between its first trial to end and its last, so that the import of torch does not count.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import optuna

from benchmarks.command_line import Parser
from engine.config.components import ROOT
from engine.tuning.study.trials import ended_trials

SEARCH = """
budget: {trials: TRIALS, epochs: EPOCHS}
sampler: random
set: {loss: softmax_focal}
space: {loss.gamma: {float: [0, 5]}}
confirm: {top: 0}
"""


def rate(folder: Path, *, workers: int, trials: int, epochs: int) -> float:
    """Measure the trials an hour of a sweep on digits with this many workers."""
    path = folder / "search.yaml"
    text = SEARCH.replace("TRIALS", str(trials)).replace("EPOCHS", str(epochs))
    path.write_text(text, encoding="utf-8")
    words = ["experiments/digits_lt.yaml", f"track.root={folder}", "--search", str(path)]
    options = ["--study", "study", *(["--workers", str(workers)] if workers > 1 else ["--join"])]
    subprocess.run(
        [sys.executable, "sweep.py", *words, *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database = f"sqlite:///{folder / 'study' / 'study.db'}"
    study = optuna.load_study(study_name="study", storage=database)
    ends = sorted(t.datetime_complete for t in ended_trials(study) if t.datetime_complete)
    return (len(ends) - 1) / (ends[-1] - ends[0]).total_seconds() * 3600


def main() -> None:
    """Print the rates and their ratio."""
    parser = Parser("benchmarks.sweep_workers", __doc__)
    parser.add_numbers(
        ("--rounds", 3, "turns of each number of workers"),
        ("--trials", 16, "trials of a search"),
        ("--epochs", 5, "epochs of a trial"),
    )
    options = parser.parse_args()
    ratios = []
    for number in range(options.rounds):
        rates = {}
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                rates[workers] = rate(
                    Path(folder), workers=workers, trials=options.trials, epochs=options.epochs
                )
        ratios.append(rates[2] / rates[1])
        print(
            f"round {number + 1}: {rates[1]:.0f} trials an hour with one worker, {rates[2]:.0f} "
            f"with two: {ratios[-1]:.2f} times as many",
            flush=True,
        )
    print(f"median of {options.rounds} rounds: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
