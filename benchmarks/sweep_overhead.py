"""What a trial costs beyond its training: ``python -m benchmarks.sweep_overhead``.

CPU time of this process, which other work on the machine does not change. Training is the epochs
and the passes over validation; the rest is asking, building the model, checkpoints, files, W&B and
the storage. The first trial also loads the data and imports what is imported late.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sweep
from engine.training import evaluation, train_loop

SEARCH = """
budget: {trials: 6, epochs: 3}
sampler: tpe
pruner: {name: median, warmup: 0.4}
set: {loss: softmax_focal, reweight: power}
space:
  reweight.power: {float: [0, 1.5]}
  loss.gamma: {float: [0, 5]}
confirm: {top: 0}
"""


def main() -> None:
    """Run a small sweep on digits and print the CPU seconds of each trial."""
    trained = [0.0]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                trained[0] += time.process_time() - began

        return call

    import engine.tuning.study.worker

    train_loop.Trainer.train_epoch = timed(train_loop.Trainer.train_epoch)  # type: ignore[method-assign]
    evaluation.predict = timed(evaluation.predict)
    ask = engine.tuning.study.worker.Worker._ask_and_train
    rest: list[float] = []

    def one(worker: engine.tuning.study.worker.Worker) -> None:
        before, trained[0] = time.process_time(), 0.0
        ask(worker)
        rest.append(time.process_time() - before - trained[0])
        print(f"trial {len(rest) - 1}: {trained[0]:.2f} s of training, {rest[-1]:.2f} s besides")

    engine.tuning.study.worker.Worker._ask_and_train = one  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "search.yaml"
        path.write_text(SEARCH, encoding="utf-8")
        words = ["experiments/digits_lt.yaml", f"track.root={folder}", "runtime.threads=1"]
        code = sweep.main([*words, "--search", str(path), "--join"])
    print(
        f"after the first: median {statistics.median(rest[1:]):.2f} s, most {max(rest[1:]):.2f} s"
    )
    sys.exit(code)


if __name__ == "__main__":
    main()
