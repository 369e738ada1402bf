"""``python -m engine.report.intervals``: how sure the test numbers of one finished run are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.config.arguments import Parser, unknown_options
from engine.config.messages import counted, one_line
from engine.config.mistakes import ConfigError
from engine.report.predictions_file import read_predictions_file

USAGE = """\
usage: python -m engine.report.intervals RUN_FOLDER [--rule RULE]

Print test accuracy, balanced accuracy, many, medium and few, and the recall of each class of a
finished run, each with a 95 % interval over the test images. Where the data set knows which images
belong together (smear, patient), whole groups are resampled. Nothing is changed. The interval says
what another test split of this kind would give the same weights; other seeds are not in it.

  python -m engine.report.intervals runs/chula_rbc12/0123456789ab

options:
  --rule RULE  a selection rule; default: that of the headline
  -h, --help   this text
"""
OPTIONS = ("--rule", "--help")
DRAWS = 2000
_DRAWN_TOGETHER = 2**22  # numbers of a chunk of resamples
_TAILS = (0.025, 0.975)


class Interval(NamedTuple):
    """A value, and the bootstrap percentiles 2.5 and 97.5; NaN where nothing is defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """The intervals of one pass of predictions.

    Attributes:
        means: by name.
        recall: of each class, in label order.
        num_clusters: groups that were resampled, or images.
    """

    means: dict[str, Interval]
    recall: tuple[Interval, ...]
    num_clusters: int


def cluster_intervals(
    targets: npt.NDArray[np.integer],
    predictions: npt.NDArray[np.integer],
    groups: npt.NDArray[np.integer] | None,
    *,
    masks: dict[str, npt.NDArray[np.bool_]],
    num_classes: int,
) -> Intervals:
    """Resample whole groups with replacement, 2,000 times, and take percentiles.

    Images of one group are right and wrong together more often than others; resampling images
    would make intervals too narrow (Davison and Hinkley, 1997, "Bootstrap Methods", section 3.8).
    A class without an image in a resample has no recall there, and is left out of its means.

    Args:
        targets: (N,) true class.
        predictions: (N,) predicted class.
        groups: (N,) number of each image's group; None resamples images.
        masks: (C,) classes whose mean recall is wanted, by name.
        num_classes: C.
    """
    from scipy.sparse import coo_array

    clusters = np.arange(len(targets)) if groups is None else groups
    _, clusters = np.unique(clusters, return_inverse=True)
    num, shape = int(clusters.max()) + 1, (int(clusters.max()) + 1, num_classes)
    is_right = (targets == predictions).astype(np.float64)
    images = coo_array((np.ones(len(targets)), (clusters, targets)), shape=shape).tocsr()
    right = coo_array((is_right, (clusters, targets)), shape=shape).tocsr()
    draw = np.random.default_rng(0)
    step = max(1, _DRAWN_TOGETHER // num)
    drawn: list[dict[str, npt.NDArray[np.float64]]] = [
        _scores(
            (images.T @ times.T).T,
            (right.T @ times.T).T,
            masks=masks,
        )
        for start in range(0, DRAWS, step)
        for times in [
            draw.multinomial(num, np.full(num, 1 / num), size=min(step, DRAWS - start)).astype(
                np.float64
            )
        ]
    ]
    once = np.ones((1, num))
    values = _scores((images.T @ once.T).T, (right.T @ once.T).T, masks=masks)
    found = {
        name: _interval(value[0], np.concatenate([scores[name] for scores in drawn]))
        for name, value in values.items()
        if name != "recall"
    }
    recalls = np.concatenate([scores["recall"] for scores in drawn])
    return Intervals(
        means=found,
        recall=tuple(
            _interval(value, recalls[:, label]) for label, value in enumerate(values["recall"][0])
        ),
        num_clusters=num,
    )


def _scores(
    images: npt.NDArray[np.float64],
    right: npt.NDArray[np.float64],
    *,
    masks: dict[str, npt.NDArray[np.bool_]],
) -> dict[str, npt.NDArray[np.float64]]:
    """Return scores of resamples (B,) and recalls (B, C) from images and hits (B, C)."""
    recall = np.full(images.shape, np.nan)
    np.divide(right, images, out=recall, where=images > 0)
    scores = {"accuracy": right.sum(1) / images.sum(1), "recall": recall}
    for name, mask in masks.items():
        there = images[:, mask] > 0
        total = np.where(there, recall[:, mask], 0.0).sum(1)
        scores[name] = np.full(len(images), np.nan)
        np.divide(total, there.sum(1), out=scores[name], where=there.any(1))
    return scores


def _interval(value: float, drawn: npt.NDArray[np.float64]) -> Interval:
    defined = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(defined):
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(defined, _TAILS)
    return Interval(float(value), float(low), float(high))


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
        found, names = of_run(given.run.expanduser(), rule=given.rule)
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

    table = Table(box=SIMPLE_HEAD)
    table.add_column("test")
    for heading in ("value", "low", "high"):
        table.add_column(heading, justify="right")
    named = [*found.means.items(), *zip(map(one_line, names), found.recall, strict=True)]
    for name, interval in named:
        if not np.isnan(interval.value):
            table.add_row(Text(name), *(f"{number:.3f}" for number in interval))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    what = counted(found.num_clusters, "group or image", "groups or images")
    console.print(Text(f"95 % bootstrap intervals over {what}, {DRAWS:,} resamples"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
