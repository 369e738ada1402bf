"""Optimizers from timm's factory; the learning rate as a pure function of training progress."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers

from engine.config.mistakes import ConfigError, nearest
from engine.training.schedules._base import Schedule

DEFAULT_MOMENTUM = 0.9


def build_optimizer(
    parameters: Iterable[torch.nn.Parameter],
    *,
    name: str,
    lr: float,
    weight_decay: float,
    momentum: float = DEFAULT_MOMENTUM,
) -> torch.optim.Optimizer:
    """timm's optimizer ``name``; weight decay falls on every parameter, as in the papers' code.

    ``sgd`` has Nesterov momentum in timm's naming, ``momentum`` is the plain one.

    Raises:
        ConfigError: timm has no such optimizer, or it takes no momentum and one was set.
    """
    known = [str(known) for known in list_optimizers()]
    if name not in known:
        raise ConfigError([f"optim.name={name}: timm has no such optimizer{nearest(name, known)}"])
    takes_momentum = get_optimizer_info(name).has_momentum
    if momentum != DEFAULT_MOMENTUM and not takes_momentum:
        raise ConfigError([f"optim.momentum={momentum:g}: has no effect with optim.name={name}"])
    return create_optimizer_v2(
        [p for p in parameters if p.requires_grad],
        opt=name,
        lr=lr,
        weight_decay=weight_decay,
        momentum=momentum,
    )


def rate_factor(unit: int, units: int, *, schedule: Schedule, warmup: float) -> float:
    """Learning rate over the peak rate, at ``unit`` of ``units`` (optimizer steps or epochs).

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
