"""Losses of large batches on the CPU that make their gradient in the forward pass.

Composed of PyTorch's functions, a loss fills two to ten tensors of the logits' size, and above some
16 MB the memory of each goes back to the system and is fetched anew, page by page, the next time:
that costs more than the arithmetic. Here a part of the batch is finished, gradient included, while
it is in the processor's cache, and the gradient is all that stays. The composition remains the
definition of a loss: it runs wherever `can_fuse` says no, and is what second derivatives are of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ._inputs import is_readable

# Below this number of logits the composition is as fast: what is spared costs less than starting
# some twenty small operations. The composition on sigmoids has more to spare.
MIN_LOGITS = {"softmax": 2**18, "sigmoid": 2**16}


def can_fuse(
    activation: Literal["softmax", "sigmoid"], logits: Tensor, *constants: Tensor | float | None
) -> bool:
    """Tell whether many logits on the CPU want a first derivative, by them alone.

    Args:
        activation: What the logits go through: how many are many depends on it.
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
    return (
        is_readable(logits)
        and torch.is_grad_enabled()
        and logits.requires_grad
        and type(logits) in (Tensor, torch.nn.Parameter)
        and not any(isinstance(c, Tensor) and c.requires_grad for c in constants)
        and forward_ad.unpack_dual(logits).tangent is None
    )


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
