"""Parameters in groups: which of them decay, and how fast each layer learns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from timm.optim import param_groups_weight_decay
from torch import nn

import models
from engine.config.mistakes import ConfigError


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained alike.

    Attributes:
        names: in the model, in its order.
        parameters: the parameters of these names.
        weight_decay: of all of them.
        lr_scale: factor on the learning rate.
    """

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    weight_decay: float
    lr_scale: float


def parameter_groups(
    model: models.Classifier,
    *,
    name: str,
    weight_decay: float,
    decay_on: Literal["all", "weights"] = "all",
    layer_decay: float = 1.0,
    head_lr: float = 1.0,
) -> list[ParameterGroup]:
    """Put the parameters that are trained into as few groups as there are differences.

    Args:
        model: backbone and head.
        name: of the backbone, for messages.
        weight_decay: of the parameters that decay.
        decay_on: ``weights`` leaves out biases, norms and tokens by timm's rule: whatever has one
            dimension, is called bias, or is in the backbone's own ``no_weight_decay``.
        layer_decay: factor on the rate from each layer to the one before it, the head being the
            last (Clark et al. 2020, "ELECTRA", sec. 3.1; Bao et al. 2022, "BEiT").
        head_lr: factor on the rate of the head.

    Raises:
        ConfigError: timm knows no layers of this backbone.
    """
    spared = set(_without_decay(model)) if decay_on == "weights" else set()
    layers = _layers(model, name=name) if layer_decay != 1 else {}
    last = max(layers.values(), default=0)
    found: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = layer_decay ** (last - layers[key]) if layers else 1.0
        scale *= head_lr if key.startswith("head.") else 1.0
        decay = 0.0 if id(parameter) in spared else weight_decay
        found.setdefault((decay, scale), []).append((key, parameter))
    return [
        ParameterGroup(
            names=tuple(key for key, _ in members),
            parameters=tuple(parameter for _, parameter in members),
            weight_decay=decay,
            lr_scale=scale,
        )
        for (decay, scale), members in found.items()
    ]


def described(model: nn.Module, groups: Sequence[ParameterGroup]) -> dict[str, Any]:
    """Return how many parameters a model has, how many are trained, and what each group holds."""
    return {
        "total": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for group in groups for p in group.parameters),
        "groups": [
            {
                "lr_scale": group.lr_scale,
                "weight_decay": group.weight_decay,
                "parameters": sum(p.numel() for p in group.parameters),
                "names": list(group.names),
            }
            for group in groups
        ],
    }


def _without_decay(model: models.Classifier) -> Iterator[int]:
    """Yield the identities of the parameters that timm's rule spares."""
    for part in (model.backbone, model.head):
        spared = {*getattr(part, "no_weight_decay", set)(), "*.prompt.tokens"}
        for group in param_groups_weight_decay(part, 1.0, no_weight_decay_list=spared):
            if group["weight_decay"] == 0:
                yield from map(id, group["params"])


def _layers(model: models.Classifier, *, name: str) -> dict[str, int]:
    """Return each parameter's layer, the head being the last.

    Raises:
        ConfigError: the backbone does not say what its layers are.
    """
    layers = models.layers_of(model.backbone)
    if layers is None:
        raise ConfigError(
            [f"optim.layer_decay: {name} does not say what its layers are; set it to 1"]
        )
    return {
        **{f"backbone.{key}": layer for key, layer in layers.of.items()},
        **{f"head.{key}": layers.head for key, _ in model.head.named_parameters()},
    }
