"""Losses on a CUDA device: one kernel in the place of a dozen operations.

A batch keeps a GPU busy for microseconds: what a loss costs there is starting its operations. The
kernels are those of `_softmax_kernels` and `_sigmoid_kernels`; where they cannot be had, a loss is
composed of PyTorch's functions. The composition remains the definition of a loss, of which second
derivatives are made.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

# Programs that are started at once; one of them counts all samples for a mean, for which with more
# of them the others would wait.
MAX_ROWS = 2**16
# Set once a kernel could not be compiled or started, or was wrong: losses are composed then.
given_up = threading.Event()


class MadeRows(NamedTuple):
    """A loss, and the gradient of its sum with respect to the logits."""

    value: Tensor  # (N,), or a scalar
    gradient: Tensor | None  # (N, C)


def is_on_device(logits: Tensor) -> bool:
    """Tell whether logits are where kernels run; a compiler makes its own."""
    return logits.is_cuda and not torch.compiler.is_compiling()


def are_plain(logits: Tensor) -> bool:
    """Tell whether logits are eager float32 ones (N, C), with no other derivative than backward."""
    return (
        # Batched and fake tensors, and modes that record operations, have nothing for a kernel.
        not torch._C._are_functorch_transforms_active()
        and torch._C._len_torch_dispatch_stack() == 0
        and type(logits) in (Tensor, torch.nn.Parameter)
        and logits.ndim == 2
        and logits.dtype == torch.float32
        and 0 < len(logits) <= MAX_ROWS
        and forward_ad.unpack_dual(logits).tangent is None
    )


def is_constant(values: Tensor, shape: tuple[int, ...]) -> bool:
    """Tell whether values have a shape, and no gradient of theirs is wanted."""
    return values.shape == shape and not values.requires_grad


def made_by(
    kernel: Callable[..., MadeRows],
    logits: Tensor,
    targets: Tensor,
    composed: Callable[[Tensor], Tensor],
) -> Tensor | None:
    """Return a loss made by ``kernel(logits, with_gradient=...)``, or None where that fails.

    Args:
        kernel: Gets logits (N, C) without a gradient whose classes lie side by side.
        logits: (N, C).
        targets: What else the loss is of; a change of them before the backward pass is an error.
        composed: The same loss of logits, for second derivatives.
    """
    wants = torch.is_grad_enabled() and logits.requires_grad
    try:
        # Triton starts kernels on the current device.
        with torch.cuda.device_of(logits):
            made = kernel(_dense(logits.detach()), with_gradient=wants)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a compiler, a driver, a cache: any of them
        _give_up(error)
        return None
    return GradientOfRows.apply(logits, made, targets, composed) if wants else made.value


def check_made(made: MadeRows, logits: Tensor, composed: Callable[[Tensor], Tensor]) -> None:
    """Compare what a kernel made of logits with the composition.

    Raises:
        ArithmeticError: They differ by more than rounding explains.
    """
    leaf = logits.detach().requires_grad_()
    value = composed(leaf)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    for found, expected in ((made.value, value), (made.gradient, gradient)):
        if found is None:
            continue
        right = expected.detach().to(found)
        largest = right.abs().max().item()
        if not torch.allclose(found, right, rtol=1e-3, atol=1e-4 * largest):
            raise ArithmeticError("its numbers are not those of PyTorch's functions")


def _give_up(error: Exception) -> None:
    """Leave losses to their compositions from now on, and say why."""
    given_up.set()
    lines = str(error).strip().splitlines()
    reason = ": ".join([type(error).__name__, *lines[:1]])
    warnings.warn(
        f"losses are computed without Triton from now on, more slowly ({reason})",
        RuntimeWarning,
        stacklevel=2,
    )


def _dense(logits: Tensor) -> Tensor:
    """Return logits whose classes lie side by side."""
    return logits if logits.stride(1) == 1 else logits.contiguous()


class GradientOfRows(torch.autograd.Function):
    """A loss of rows that is there already, and so is its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        made: MadeRows,
        targets: Tensor,
        composed: Callable[[Tensor], Tensor],
    ) -> Tensor:
        # The targets too, so that a change of them in the meantime is noticed.
        ctx.save_for_backward(logits, targets)
        ctx.gradient, ctx.composed = made.gradient, composed
        return made.value

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None, None]:
        logits, _ = ctx.saved_tensors
        create_graph = torch.is_grad_enabled()
        if create_graph or ctx.gradient is None:
            with torch.enable_grad():
                value = ctx.composed(logits)
            (gradient,) = torch.autograd.grad(value, logits, outer, create_graph=create_graph)
            return gradient, None, None, None
        factor = outer[0].unsqueeze(1) if outer[0].ndim else outer[0]
        try:
            gradient = ctx.gradient.mul_(factor)
        except RuntimeError:  # is_grads_batched, as of a vectorized Jacobian: many gradients
            return ctx.gradient * factor, None, None, None
        ctx.gradient = None  # with retain_graph the next one is composed
        return gradient, None, None, None
