"""How a backbone is tuned: what trains, what rests, and what else it could be."""

from __future__ import annotations

import importlib
import pkgutil

from torch import Tensor, nn

from . import tuning as ways
from ._backbone import ModelError
from .tuning._base import CannotTuneError, Tuning


def tune(backbone: nn.Module, tuning: Tuning, image: Tensor, *, name: str) -> None:
    """Freeze a backbone but for what one way of tuning trains or adds.

    Args:
        backbone: Images to pooled features; changed in place.
        tuning: The way.
        image: A blank image (1, C, H, W) of the size at hand.
        name: Of the backbone, for messages.

    Raises:
        ModelError: The backbone cannot be tuned so; it names the ways that it can.
    """
    backbone.requires_grad_(False)
    try:
        tuning.apply(backbone, image)
    except CannotTuneError as error:
        way = type(tuning).__module__.rpartition(".")[2]
        others = ", ".join(["full", *_possible(backbone, image)])
        raise ModelError(
            f"model.tune={way}: {name} {error}; it can be tuned by {others}"
        ) from error


def _possible(backbone: nn.Module, image: Tensor) -> list[str]:
    """Return the ways, at their default keys, in which a backbone can be tuned."""
    found = []
    for file in pkgutil.iter_modules(ways.__path__):
        if file.name.startswith("_"):
            continue
        module = importlib.import_module(f"{ways.__name__}.{file.name}")
        names = {name.lower(): name for name in vars(module)}
        way: type[Tuning] = getattr(module, names[file.name.replace("_", "")])
        try:
            way().targets(backbone, image)
        except CannotTuneError:
            continue
        found.append(file.name)
    return found


def rest_frozen(backbone: nn.Module) -> None:
    """Put what is not trained into evaluation mode.

    A module rests with all below it where nothing of that is trained, and by itself where a
    parameter of its own is not: a batch normalisation keeps its statistics unless it is trained
    whole. Dropout and stochastic depth have no parameters and go with what they are in.
    """
    for module in backbone.modules():
        own = list(module.parameters(recurse=False))
        if not any(p.requires_grad for p in module.parameters()) and _has_parameters(module):
            module.eval()
        elif not all(p.requires_grad for p in own):
            module.training = False


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
