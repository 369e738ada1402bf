"""The learning rate as a pure function of training progress."""

from __future__ import annotations

from collections.abc import Callable

from engine.config import components
from engine.config.schema import Config, chosen_keys
from engine.training.schedules._base import Schedule


def rate_of(config: Config) -> Callable[[int, int, int], float]:
    """Return the learning rate as a function of the epoch, the step and the steps an epoch."""
    chosen = config.schedule
    schedule = components.build(
        "engine.training.schedules", chosen.name, chosen_keys(config, "schedule.name")
    )

    def rate(epoch: int, step: int, steps: int) -> float:
        is_per_step = chosen.unit == "step"
        factor = rate_factor(
            epoch * steps + step if is_per_step else epoch,
            chosen.epochs * steps if is_per_step else chosen.epochs,
            schedule=schedule,
            warmup=chosen.warmup,
        )
        return config.optim.lr * factor

    return rate


def rate_factor(unit: int, units: int, *, schedule: Schedule, warmup: float) -> float:
    """Return the rate over its peak, at ``unit`` of ``units`` (optimizer steps or epochs).

    The warm-up rises linearly to 1 over the first ``warmup * units`` units, its first unit already
    above zero: 1/5, 2/5 ... for five. What follows is the schedule's.

    >>> from engine.training.schedules.steps import Steps
    >>> falls = Steps(steps=(0.8, 0.9), decay=0.01)
    >>> [round(rate_factor(e, 200, schedule=falls, warmup=0.025), 6)
    ...  for e in (0, 4, 5, 159, 160, 180)]
    [0.2, 1.0, 1.0, 1.0, 0.01, 0.0001]
    """
    begin = warmup * units
    if unit + 1 <= begin:
        return (unit + 1) / begin
    return schedule.factor(unit, units=units, begin=begin)
