"""Norms in 16 bits on a CPU, where torch 2.14 does not get all of their gradients right.

It sums the gradients of a LayerNorm's scales and offsets in the precision of the maps: a sum of
ones ends at 256 in bfloat16, with one thread. Norms without scales keep the means that they have
taken in that precision for the way back, and so do all norms that are compiled. Where a mean is not
small beside the deviation, gradients get several times as wrong as 16 bits make them, and those of
the scales of a compiled BatchNorm by more than their own size.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


class InFloat32(nn.Module):
    """Takes maps of 16 bits as float32 where the norm would be wrong, and gives them back as 16."""

    def forward(self, maps: Tensor, *others: Any, **more: Any) -> Any:
        """Normalise maps."""
        forward = super().forward  # of the norm that this is mixed into
        is_right = getattr(self, "weight", None) is not None and not isinstance(self, nn.LayerNorm)
        if maps.dtype.itemsize != 2 or (is_right and not torch.compiler.is_compiling()):
            return forward(maps, *others, **more)
        return forward(maps.float(), *others, **more).to(maps.dtype)


def normalise_in_float32(model: nn.Module) -> None:
    """Have all norms of a model take maps of 16 bits as float32 where it matters.

    Classes of modules are changed, and not what the modules hold: models that are built alike share
    what is compiled, copies are as the model is, and activations may be recomputed.
    """
    norms: list[Any] = [module for module in model.modules() if isinstance(module, NORMS)]
    for norm in norms:
        if not isinstance(norm, InFloat32):
            kind: Any = type(norm)
            norm.__class__ = _in_float32(kind)


@functools.cache
def _in_float32(norm: type[nn.Module]) -> type[nn.Module]:
    """Return a class of norms that is :class:`InFloat32`."""
    return type(norm.__name__, (InFloat32, norm), {})
