"""Optimizers from timm's factory."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers

from engine.config.mistakes import ConfigError, nearest
from engine.training.parameter_groups import ParameterGroup

DEFAULT_MOMENTUM = 0.9


def build_optimizer(
    parameters: Iterable[torch.nn.Parameter] | Iterable[ParameterGroup],
    *,
    name: str,
    lr: float,
    weight_decay: float,
    momentum: float = DEFAULT_MOMENTUM,
) -> torch.optim.Optimizer:
    """Build timm's optimizer ``name`` over parameters, all of which decay, or over groups of them.

    ``sgd`` has Nesterov momentum in timm's naming, ``momentum`` is the plain one; without momentum
    the two are the same.

    Args:
        parameters: those that take no gradient are left out. A single group in which nothing
            differs from the arguments is the same as its parameters.
        name: a name of timm.
        lr: the rate, times a group's own factor.
        weight_decay: of parameters in no group.
        momentum: of optimizers that have one.

    Raises:
        ConfigError: timm has no such optimizer, it cannot train these parameters here, or it takes
            no momentum and one was set.
    """
    known = [str(known) for known in list_optimizers()]
    if name not in known:
        hint = nearest(name, known) or "; timm.optim.list_optimizers() lists the names"
        raise ConfigError([f"optim.name={name}: timm has no such optimizer{hint}"])
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
    given = _given(list(parameters), lr=lr, weight_decay=weight_decay)
    _check_step(given, settings)
    # One group of plain parameters has no key but torch's own, as in the checkpoints of before.
    is_plain = len(given) == 1 and given[0].keys() == {"params"}
    return _created(given[0]["params"] if is_plain else given, settings)


def _created(given: Any, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Create timm's optimizer; kron's advice to install a package is in our documentation."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*opt_einsum")
        return create_optimizer_v2(given, **settings)


def _given(
    parameters: Sequence[torch.nn.Parameter | ParameterGroup], *, lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Return groups as torch takes them."""
    groups = [item for item in parameters if isinstance(item, ParameterGroup)]
    plain = [p for p in parameters if not isinstance(p, ParameterGroup) and p.requires_grad]
    if len(groups) == 1 and groups[0].lr_scale == 1 and groups[0].weight_decay == weight_decay:
        plain = list(groups[0].parameters)
    if plain:
        return [{"params": plain}]
    return [
        {
            "params": list(group.parameters),
            "weight_decay": group.weight_decay,
            "lr": lr * group.lr_scale,
            "lr_scale": group.lr_scale,
        }
        for group in groups
    ]


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


def _check_step(groups: Sequence[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Take one step with the smallest weight of each rank, which shows what cannot be trained.

    Raises:
        ConfigError: a package or a device is missing, or weights of such a shape are refused.
    """
    trials = []
    for group in groups:
        smallest = {p.ndim: p for p in sorted(group["params"], key=torch.numel, reverse=True)}
        weights = [torch.nn.Parameter(p.detach().clone()) for p in smallest.values()]
        for weight in weights:
            weight.grad = torch.full_like(weight, 1e-3)
        trials.append({**group, "params": weights})
    devices = [p.device for trial in trials for p in trial["params"] if p.is_cuda][:1]
    try:
        with torch.random.fork_rng(devices=devices):
            _created(trials, settings).step()
    except REFUSALS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        name = settings["opt"]
        raise ConfigError(
            [f"optim.name={name}: cannot train this model here: {reason}; choose another"]
        ) from error
