"""Optimizers from timm's factory; the learning rate as a pure function of training progress."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

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
    """Build timm's optimizer ``name``; every parameter decays, as in the papers' code.

    ``sgd`` has Nesterov momentum in timm's naming, ``momentum`` is the plain one; without momentum
    the two are the same.

    Raises:
        ConfigError: timm has no such optimizer, it cannot train these parameters here, or it takes
            no momentum and one was set.
    """
    known = [str(known) for known in list_optimizers()]
    if name not in known:
        raise ConfigError([f"optim.name={name}: timm has no such optimizer{nearest(name, known)}"])
    info = get_optimizer_info(name)
    if momentum != DEFAULT_MOMENTUM and not info.has_momentum:
        raise ConfigError([f"optim.momentum={momentum:g}: has no effect with optim.name={name}"])
    if info.second_order:
        raise ConfigError(
            [f"optim.name={name}: needs second derivatives, which no step here takes"]
        )
    settings: dict[str, Any] = {
        "opt": name,
        "lr": lr,
        "weight_decay": weight_decay,
        "momentum": momentum,
    }
    if momentum == 0 and (info.defaults or {}).get("nesterov"):
        settings["nesterov"] = False  # torch refuses to look ahead along no momentum
    trained = [p for p in parameters if p.requires_grad]
    _check_step(trained, settings)
    return create_optimizer_v2(trained, **settings)


# What timm, torch and the packages that timm asks for answer to what they cannot do.
REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def _check_step(parameters: Sequence[torch.nn.Parameter], settings: dict[str, Any]) -> None:
    """Take one step with the smallest weight of each rank, which shows what cannot be trained.

    Raises:
        ConfigError: a package or a device is missing, or weights of such a shape are refused.
    """
    smallest = {p.ndim: p for p in sorted(parameters, key=torch.numel, reverse=True)}
    trial = [torch.nn.Parameter(p.detach().clone()) for p in smallest.values()]
    for weight in trial:
        weight.grad = torch.full_like(weight, 1e-3)
    devices = [p.device for p in trial[:1] if p.is_cuda]
    try:
        with torch.random.fork_rng(devices=devices):
            create_optimizer_v2(trial, **settings).step()
    except REFUSALS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        name = settings["opt"]
        raise ConfigError(
            [f"optim.name={name}: cannot train this model here: {reason}; choose another"]
        ) from error


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
