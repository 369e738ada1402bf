"""What a step costs in each way of tuning, against one of full tuning or another base.

    python -m benchmarks.light_tuning --rounds 9 model=vit_tiny_patch16_224 data.size=224

The steps are those of train.py, on drawn images unless other words say so: batches of the loader,
the loss, the optimizer. The ways take turns, some steps a turn, in a new random order every round:

  full      model.tune=full
  forward   no step: the images of the batches through the backbone, as evaluation does it
  head      model.tune=head, through the backbone in every step
  cached    model.tune=head on features that were computed before the clock starts
  lora      model.tune=lora; lora-att on attention alone, lora-mlp on the MLPs alone
  adapter, bias, norm   model.tune=adapter, bias, norm

Prints medians and quartiles over rounds, of a step and of its ratio to the base's of its round, and
how many of the parameters each way trains: the optimizer's state is as many numbers for each.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import timm
import torch

from benchmarks import timing
from benchmarks.command_line import Parser
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.training.epoch_totals import EpochTotals
from engine.training.machine import Machine, machine
from engine.training.predict_loop import predict
from engine.training.setup import Setup, load_dataset, set_up

WAYS = {
    "full": ("model.tune=full",),
    "forward": ("model.tune=full",),
    "head": ("model.tune=head", "runtime.cache_features=false"),
    "cached": ("model.tune=head",),
    "lora": ("model.tune=lora",),
    "lora-att": ("model.tune=lora", "model.lora_layers=attention"),
    "lora-mlp": ("model.tune=lora", "model.lora_layers=mlp"),
    "adapter": ("model.tune=adapter",),
    "bias": ("model.tune=bias",),
    "norm": ("model.tune=norm",),
}
DRAWN = {
    "data": "synthetic",
    "data.channels": "3",
    "data.size": "224",
    "data.num_train_per_class": "64",
    "data.imbalance": "none",
    "data.validation.per_class": "1",
    "model": "vit_tiny_patch16_224",
    "optim": "adamw",
    "optim.lr": "0.001",
}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser("benchmarks.light_tuning", __doc__)
    parser.add_numbers(
        ("--rounds", 9, "turns of each way"),
        ("--steps", 1, "steps of a turn"),
        ("--threads", 1, "of torch"),
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which (all)")
    parser.add_argument("--base", choices=WAYS, default="full", help="of the ratios (full)")
    parser.add_argument("words", nargs="*", help="key=value pairs, as for train.py")
    return parser.parse_intermixed_args(argv)


def turn_of(way: str, setup: Setup, computer: Machine) -> timing.Turn:
    """Return what makes steps of one way."""
    epoch, order = 0, torch.Generator().manual_seed(0)

    def run(steps: int) -> None:
        nonlocal epoch
        size = steps * setup.config.optim.batch_size
        positions = torch.randint(len(setup.dataset.train), (size,), generator=order)
        batches, epoch = setup.loader.epoch(positions, epoch=epoch), epoch + 1
        if way == "forward":
            predict(setup.trainer.model, batches, num_images=size, device=computer.device)
        else:
            setup.trainer.train_epoch(batches, epoch=0, steps=steps, totals=EpochTotals())

    return lambda steps: timing.cost(lambda: run(steps), steps=steps, device=computer.device)


def setup_of(words: Sequence[str], weights: Path, computer: Machine) -> Setup:
    """Return the run of some words, on drawn images and drawn weights where these name no others.

    Args:
        words: key=value pairs.
        weights: where drawn weights are kept.
        computer: what it is trained on.
    """
    given = {word.partition("=")[0] for word in words}
    drawn = {} if "data" in given else DRAWN
    usual = [f"{key}={value}" for key, value in drawn.items() if key not in given]
    if "model.pretrained" not in given:
        if not weights.exists():
            model = load(overrides=[*words, *usual]).model.name
            torch.save(timm.create_model(model).state_dict(), weights)
        usual.append(f"model.pretrained={weights}")
    config = load(overrides=[*words, *usual, "runtime.device=cpu"])
    return set_up(config, load_dataset(config), computer)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return 0, or 2 for a mistake in the words."""
    given = arguments(sys.argv[1:] if argv is None else argv)
    ways = dict.fromkeys([given.base, *given.ways])
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ.setdefault("DATA_ROOT", folder)
            runtime = load(overrides=[f"runtime.threads={given.threads}"]).runtime
            with machine(runtime.model_copy(update={"device": "cpu"})) as computer:
                weights = Path(folder) / "weights.pth"
                setups = {
                    way: setup_of([*given.words, *WAYS[way]], weights, computer) for way in ways
                }
                turns = {way: turn_of(way, setup, computer) for way, setup in setups.items()}
                costs = timing.measure(turns, rounds=given.rounds, steps=given.steps)
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2
    print(*timing.table(costs, base=given.base), sep="\n")
    for way, setup in setups.items():
        sizes = setup.parameters
        share = sizes["trained"] / sizes["total"]
        print(f"{way:8} trains {sizes['trained']:>12,} of {sizes['total']:,} ({share:.2%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
