"""Softmax losses of labels on a CUDA device: one kernel in the place of a dozen operations.

A batch keeps a GPU busy for microseconds: what a loss costs there is starting its operations. The
kernels are those of `_softmax_kernels`; where they cannot be had, a loss is composed of PyTorch's
functions. The composition remains the definition of a loss, of which second derivatives are made.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

if TYPE_CHECKING:
    from ._sample_loss import SampleLoss

# One program counts all samples for a mean: with more of them the others would wait for it.
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


def device_loss(logits: Tensor, loss: SampleLoss) -> Tensor | None:
    """Return a loss of logits (N, C) computed by kernels, or None where they are not for it.

    Returns:
        (N,), or a scalar, in float32.
    """
    if not are_for(logits, loss) or given_up.is_set():
        return None
    from ._softmax_kernels import AVAILABLE, row_losses

    if not AVAILABLE:
        return None
    loss = _beside(loss, logits)
    wants = torch.is_grad_enabled() and logits.requires_grad
    try:
        # Triton starts kernels on the current device.
        with torch.cuda.device_of(logits):
            made = row_losses(_dense(logits.detach()), loss, with_gradient=wants)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a compiler, a driver, a cache: any of them
        _give_up(error)
        return None
    return GradientOfRows.apply(logits, made, loss) if wants else made.value


def check_on_trial(
    kernel: Callable[[Tensor, SampleLoss], MadeRows],
    logits: Tensor,
    loss: SampleLoss,
    *,
    rows: int,
) -> None:
    """Compare a kernel with the composition on drawn logits of such a loss.

    Not on those of the batch: where they fit it well, rounding is all that is left of its loss.

    Raises:
        ArithmeticError: They differ by more than rounding explains.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        # A generator of its own: the run's draws stay as they are.
        generator = torch.Generator().manual_seed(0)
        num_classes = logits.shape[1]
        drawn = torch.randn(rows, num_classes, generator=generator).to(logits.device)
        labels = torch.randint(num_classes, (rows,), generator=generator)
        labels[1:2] = loss.ignore_index
        size = None if loss.size is None else torch.ones(rows)
        # Copies, since what was made in inference mode has no part in a gradient.
        loss = _copied(loss._replace(labels=labels, size=size), logits.device)
        made = kernel(drawn, loss)
        drawn.requires_grad_()
        value = loss.composed(drawn)
        (gradient,) = torch.autograd.grad(value.sum(), drawn)
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


def are_for(logits: Tensor, loss: SampleLoss) -> bool:
    """Tell whether the kernels are for this loss, once its logits are where they run.

    They are for eager float32 logits (N, C) and a derivative by these alone.
    """
    labels, size = loss.labels, loss.size
    return (
        # Batched and fake tensors, and modes that record operations, have nothing for a kernel.
        not torch._C._are_functorch_transforms_active()
        and torch._C._len_torch_dispatch_stack() == 0
        and type(logits) in (Tensor, torch.nn.Parameter)
        and type(labels) is Tensor
        and logits.ndim == 2
        and logits.dtype == torch.float32
        and 0 < len(logits) <= MAX_ROWS
        and labels.dtype == torch.int64
        and labels.shape == logits.shape[:1]
        and labels.device == logits.device
        and labels.is_contiguous()
        and loss.reduction in ("none", "mean", "sum")
        and loss.normalize in ("samples", "weights")
        and loss.term.detach
        and all(_is_vector(v, logits.shape[1]) for v in _of_classes(loss))
        and (size is None or _is_vector(size, len(logits)))
        and forward_ad.unpack_dual(logits).tangent is None
    )


def _of_classes(loss: SampleLoss) -> list[Tensor]:
    """Return all vectors (C,) of a loss."""
    found = (*loss.adjustment, loss.factor, loss.power, loss.weight)
    return [value for value in found if isinstance(value, Tensor)]


def _beside(loss: SampleLoss, logits: Tensor) -> SampleLoss:
    """Return a loss whose vectors are dense and on the device of the logits."""
    device = logits.device
    size = () if loss.size is None else (loss.size,)
    if all(v.device == device and v.is_contiguous() for v in (*_of_classes(loss), *size)):
        return loss
    return _copied(loss, device)


def _copied(loss: SampleLoss, device: torch.device) -> SampleLoss:
    """Return a loss with copies of its tensors, dense and on a device."""

    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, copy=True, memory_format=torch.contiguous_format)
        return value

    changes: dict[str, Any] = {name: copied(value) for name, value in loss._asdict().items()}
    own = {name: copied(value) for name, value in loss.adjustment._asdict().items()}
    return loss._replace(**changes)._replace(adjustment=loss.adjustment._replace(**own))


def _is_vector(values: Tensor, length: int) -> bool:
    """Tell whether there are so many values, constants to the gradient."""
    return values.shape == (length,) and not values.requires_grad


class GradientOfRows(torch.autograd.Function):
    """A loss of rows that is there already, and so is its gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, made: MadeRows, loss: SampleLoss) -> Tensor:
        # The labels too, so that a change of them in the meantime is noticed.
        ctx.save_for_backward(logits, loss.labels)
        ctx.gradient, ctx.loss = made.gradient, loss
        return made.value

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        logits, _ = ctx.saved_tensors
        create_graph = torch.is_grad_enabled()
        if create_graph or ctx.gradient is None:
            with torch.enable_grad():
                value = ctx.loss.composed(logits)
            (gradient,) = torch.autograd.grad(value, logits, outer, create_graph=create_graph)
            return gradient, None, None
        factor = outer[0].unsqueeze(1) if outer[0].ndim else outer[0]
        try:
            gradient = ctx.gradient.mul_(factor)
        except RuntimeError:  # is_grads_batched, as of a vectorized Jacobian: many gradients
            return ctx.gradient * factor, None, None
        ctx.gradient = None  # with retain_graph the next one is composed
        return gradient, None, None


def _dense(logits: Tensor) -> Tensor:
    """Return logits whose classes lie side by side."""
    return logits if logits.stride(1) == 1 else logits.contiguous()
