"""Losses on the CPU that make their gradient in the forward pass.

Composed of PyTorch's functions, a loss of a small batch spends more time on starting operations and
on autograd's record of them than on arithmetic. A loss of a large one fills two to ten tensors of
the logits' size, and above some 16 MB the memory of each goes back to the system and is fetched
anew, page by page, the next time: that costs more than the arithmetic, too. Here a batch, or a part
of a large one, is finished, gradient included, while it is in the processor's cache, and the
gradient is all that stays. The composition remains the definition of a loss: it runs wherever
`can_fuse` says no, and is what second derivatives are of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ._inputs import is_readable

# Below this number of logits the composition is as fast: on sigmoids what is spared costs less than
# starting some twenty small operations for each part of the batch.
MIN_LOGITS = {"softmax": 1, "sigmoid": 2**16}


def can_fuse(
    activation: Literal["softmax", "sigmoid"], logits: Tensor, *constants: Tensor | float | None
) -> bool:
    """Tell whether enough logits on the CPU want a first derivative, by them alone.

    Args:
        activation: What the logits go through: how many are enough depends on it.
        logits: Of any shape.
        constants: What else the loss depends on, such as class weights.
    """
    return logits.numel() >= MIN_LOGITS[activation] and wants_gradient_alone(logits, *constants)


def wants_gradient_alone(logits: Tensor, *constants: Tensor | float | None) -> bool:
    """Tell whether logits on the CPU want a first derivative, by them alone.

    Args:
        logits: Of any shape.
        constants: What else the loss depends on, such as class weights.
    """
    if not (
        is_readable(logits)
        and logits.requires_grad
        and torch.is_grad_enabled()
        and type(logits) in (Tensor, torch.nn.Parameter)
        and forward_ad.unpack_dual(logits).tangent is None
    ):
        return False
    for constant in constants:  # in a generator expression this would take twice as long
        if constant is not None and isinstance(constant, Tensor) and constant.requires_grad:
            return False
    return True


class Made(NamedTuple):
    """A loss, a scalar, and its gradient with respect to the logits."""

    value: Tensor
    gradient: Tensor


class GradientInForward(torch.autograd.Function):
    """A loss whose gradient is there already; `composed` is the same loss for autograd."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, made: Made, composed: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(logits, made.gradient)
        ctx.composed = composed
        return made.value

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        logits, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the gradient is to be differentiated in turn
            value = ctx.composed(logits)
            (gradient,) = torch.autograd.grad(value, logits, outer, create_graph=True)
        elif not _is_one(outer[0]):  # not in place: with retain_graph it is asked for again
            gradient = gradient * outer[0]
        return gradient, None, None


def _is_one(outer: Tensor) -> bool:
    """Tell whether the loss is what was differentiated, by itself."""
    try:
        return outer.item() == 1
    except RuntimeError:  # is_grads_batched, as of a vectorized Jacobian, has no one value
        return False
