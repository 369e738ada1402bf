"""What the step loop costs around the model, and what the usual way of feeding it costs.

    python -m benchmarks.step_loop --threads 1 --rounds 30
    python -m benchmarks.step_loop runtime.precision=bfloat16 runtime.compile=true

Three ways to make the same step of a CIFAR ResNet on the same images, which are drawn, so that
anyone can run it. They take turns, some steps a turn, in a new random order every round:

  bare    zero_grad, model, F.cross_entropy, backward, optimizer.step on one batch that is ready
  whole   the step of train.py: gather, crop, flip and normalise; seeds, schedule, loss component,
          totals, gradient norm, the look at the clock and at signals
  usual   bare, in float32 and not compiled whatever the others are, fed by a DataLoader whose
          workers apply torchvision.transforms image by image
  around  whole less bare, both with a model that has the same parameters and no arithmetic:
          what the loop adds, without the noise of the convolutions

Prints medians and quartiles over rounds, of a step and of its ratio to the bare step of its round;
by the wall clock, and in CPU time of this process (without the workers), which other programs on
the machine disturb less.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import timing
from benchmarks.command_line import Parser
from benchmarks.steps import Bench, bare, usual, whole
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.training import build
from engine.training.code_hash import code_hash
from engine.training.provenance import describe_segment
from engine.training.runtime import (
    choose_device,
    cpu_threads,
    determinism,
    device_name,
    preserved_randomness,
)

NUM_IMAGES = 5000


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser("benchmarks.step_loop", __doc__)
    parser.add_numbers(
        ("--threads", 1, "CPU threads of torch"),
        ("--rounds", 30, "turns of each way"),
        ("--steps", 4, "steps of a turn"),
        ("--batch-size", 128, "images of a step"),
    )
    parser.add_argument("--model", default="cifar_resnet32", help="model.name (cifar_resnet32)")
    parser.add_argument("--device", default="auto", help="runtime.device (auto)")
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="of bare and whole: precision and compiling"
    )
    return parser.parse_args(argv)


def settings(given: argparse.Namespace) -> Config:
    """Return the config of the run that is measured: CIFAR's image shape and recipe."""
    return load(
        overrides=[
            *("data=synthetic", "data.channels=3", "data.size=32", "data.imbalance.kind=none"),
            f"data.num_train_per_class={NUM_IMAGES // 10}",
            *("data.validation.per_class=null", "data.augment.crop=4", "data.augment.flip=true"),
            f"model={given.model}",
            *("optim=momentum", "optim.lr=0.01", f"optim.batch_size={given.batch_size}"),
            f"runtime.device={given.device}",
            *given.words,
        ]
    )


def around(idle: dict[str, list[timing.Cost]], *, bare_step: list[timing.Cost]) -> Iterator[str]:
    """Yield lines: what the loop adds to a step whose model is idle, also as a share of it."""
    for clock in timing.Cost._fields:
        added = timing.seconds(idle["whole"], clock) - timing.seconds(idle["bare"], clock)
        low, middle, high = np.quantile(1e3 * added, [0.25, 0.5, 0.75])
        share = middle / np.median(1e3 * timing.seconds(bare_step, clock))
        yield (
            f"around  {clock:6}{middle:10.2f}{f'{low:.2f} to {high:.2f}':>20}"
            f"  = {share:.2%} of the bare step"
        )


def main(argv: Sequence[str]) -> int:
    """Measure; print the tables and what they were measured on; return the exit code."""
    given = arguments(argv)
    with contextlib.ExitStack() as stack:
        stack.enter_context(preserved_randomness(0))
        threads = stack.enter_context(cpu_threads(given.threads))
        stack.enter_context(determinism(is_on=False))  # as train.py, cuDNN's choice included
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        try:
            config = settings(given)
            device = choose_device(config.runtime.device)
            bench = Bench(config, build.build_dataset(config), device)
            idle = bench._replace(is_idle=True)
            idle_ways = {"bare": bare(idle), "whole": whole(idle, Path(folder))}
            ways = {"bare": bare(bench), "whole": whole(bench, Path(folder)), "usual": usual(bench)}
        except ConfigError as error:
            print(*error.mistakes, sep="\n", file=sys.stderr)
            return 2
        idle_costs = timing.measure(idle_ways, rounds=given.rounds, steps=given.steps)
        costs = timing.measure(ways, rounds=given.rounds, steps=given.steps)
    print(*timing.table(costs, base="bare"), sep="\n")
    print(*around(idle_costs, bare_step=costs["bare"]), sep="\n")
    print(f"{given.model}, batch {given.batch_size}; {given.rounds} rounds of {given.steps} steps")
    ran = describe_segment(
        command=["python", "-m", "benchmarks.step_loop", *argv],
        device=device_name(device),
        precision=config.runtime.precision,
        threads=threads,
        code=code_hash(config),
    )
    print(json.dumps(ran))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
