"""What the runs of a row have cost, earlier stages included, and which rows nothing beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.config.mistakes import ConfigError, nearest
from engine.report.statistics import DASH
from engine.tables.commands import stages_of
from engine.tables.record import RunRecord
from engine.training.summary import Cost

MIB = 2**20
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


class Measure(NamedTuple):
    """A measure of cost: its column, its words in a figure, and what one of its unit is worth."""

    heading: str
    words: str
    unit: float = 1.0


MEASURES = {
    "trained_parameters": Measure("trained", "trained parameters"),
    "images": Measure("images", "images drawn"),
    "forward": Measure("forward", "forward passes of an image"),
    "backward": Measure("backward", "backward passes of an image"),
    "seconds": Measure("seconds", "seconds of training"),
    "cpu_seconds": Measure("CPU s", "CPU seconds of training"),
    "gpu_seconds": Measure("GPU s", "GPU seconds of training"),
    "memory": Measure("memory (MiB)", "memory at the peak (MiB)", MIB),
    "gpu_memory": Measure("GPU memory (MiB)", "GPU memory at the peak (MiB)", MIB),
    "energy": Measure("energy (kJ)", "energy of training (kJ)", 1e3),
}
PEAKS = ("memory", "gpu_memory")
USUAL = ("trained_parameters", "images", "forward", "backward", "cpu_seconds")
"""Columns that are there even where no run knows them."""


def mean_costs(runs: Sequence[RunRecord], records: Sequence[RunRecord]) -> dict[str, float | None]:
    """Return the mean of each measure over the runs of a row; None where one does not know it.

    A run that starts from another of the table has cost what that one has too: its seconds, passes
    and energy are added, and of memory the larger counts. So has one that starts from the mean of
    several, or has a teacher. Its trained parameters are its own.

    Args:
        runs: of the row.
        records: of the table, in which the earlier stages are found.
    """
    found = [_of_stages(run, records) for run in runs]
    return {name: _mean([cost[name] for cost in found]) for name in MEASURES}


def _of_stages(run: RunRecord, records: Sequence[RunRecord]) -> dict[str, float | None]:
    try:
        stages = [_known(stage) for stage in stages_of(run, records)]
    except ConfigError:  # a stage without a line has an unknown cost
        stages = [_known(run), dict.fromkeys(MEASURES)]
    joined = {name: _joined(name, [cost[name] for cost in stages]) for name in MEASURES}
    return {**joined, "trained_parameters": _known(run)["trained_parameters"]}


def _known(run: RunRecord) -> dict[str, float | None]:
    """Return the cost of one run; of a line without it the seconds, which all lines have."""
    cost = dict.fromkeys(Cost.model_fields) if run.cost is None else run.cost.model_dump()
    return {**cost, "seconds": run.seconds}


def _joined(name: str, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return max(known) if name in PEAKS else sum(known)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def shown(value: float | None, measure: str) -> str:
    """Return a cost as a table prints it: three digits, thousands and more by their letter.

    >>> shown(269434, "trained_parameters"), shown(12.34, "cpu_seconds"), shown(None, "energy")
    ('269k', '12.3', '–')
    """
    if value is None:
        return DASH
    value /= MEASURES[measure].unit
    for size, letter in PREFIXES:
        if float(f"{value:.3g}") >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def checked(measure: str) -> str:
    """Return a measure that somebody named.

    Raises:
        ConfigError: there is none of this name.
    """
    if measure not in MEASURES:
        known = " | ".join(MEASURES)
        raise ConfigError([f"--against {measure}: unknown{nearest(measure, MEASURES)}; {known}"])
    return measure


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Say of each point whether no other is at least as cheap and as good, and better in one.

    It compares the numbers alone: of two means, one may be above the other by chance.

    Args:
        costs: less is better.
        values: more is better.

    >>> pareto_front([1.0, 2.0, 3.0], [0.5, 0.4, 0.6])
    [True, False, True]
    """
    points = list(zip(costs, values, strict=True))
    return [
        not any(c <= cost and v >= value and (c < cost or v > value) for c, v in points)
        for cost, value in points
    ]
