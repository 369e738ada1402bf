"""Softmax losses of labels on a CUDA device: one kernel in the place of a dozen operations.

A batch keeps a GPU busy for microseconds: what a loss costs there is starting its operations. The
kernels are those of `_softmax_kernels`; where they cannot be had, a loss is composed of PyTorch's
functions. The composition remains the definition of a loss, of which second derivatives are made.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from ._adjustment import UNADJUSTED, Adjustment
from ._inputs import known_labels
from ._modulator import focal_modulator
from ._reduction import Reduction, SampleNormalizer, reduce_values, sample_normalizer

# One program counts all samples for a mean: with more of them the others would wait for it.
MAX_ROWS = 2**16
# Set once a kernel could not be compiled or started, or was wrong: losses are composed then.
given_up = threading.Event()


class RowTerm(NamedTuple):
    """The loss of a sample as a function of its cross-entropy CE.

    With u = 1 - p and v = 1 - p^power it is ``gain factor (v^gamma CE + epsilon u^(gamma + 1))``,
    for samples with a size divided by ``2 u size + eps``, which is a constant to the gradient.
    """

    gamma: float = 0.0
    epsilon: float = 0.0
    gain: float = 1.0
    eps: float = 0.0

    def of(self, nll: Tensor, *, power: Tensor | None, size: Tensor | None) -> Tensor:
        """Return the losses (N,), but for the factor, from cross-entropies."""
        values = nll
        if self.gamma != 0:
            powered = nll if power is None else power * nll
            values = focal_modulator(powered, gamma=self.gamma) * nll
        if self.epsilon != 0:
            values = values + self.epsilon * focal_modulator(nll, gamma=self.gamma + 1)
        if size is not None:
            values = values / (-2 * torch.expm1(-nll.detach()) * size + self.eps)
        return self.gain * values


class RowLoss(NamedTuple):
    """A loss of labels but for its logits; vectors may be of any type and on any device."""

    labels: Tensor  # (N,)
    term: RowTerm
    reduction: Reduction
    normalize: SampleNormalizer
    ignore_index: int
    weight: Tensor | None  # (C,), what a mean over the weights counts samples by
    factor: Tensor | None  # (C,)
    power: Tensor | None = None  # (C,); not beside an epsilon
    size: Tensor | None = None  # (N,)
    adjustment: Adjustment = UNADJUSTED

    def of_classes(self) -> list[Tensor]:
        """Return all vectors (C,)."""
        found = (*self.adjustment, self.factor, self.power, self.weight)
        return [value for value in found if isinstance(value, Tensor)]

    def beside(self, logits: Tensor) -> RowLoss:
        """Return the same with all vectors dense and on the device of the logits."""
        device = logits.device
        size = () if self.size is None else (self.size,)
        if all(v.device == device and v.is_contiguous() for v in (*self.of_classes(), *size)):
            return self

        def moved(value: Any) -> Any:
            return value.to(device).contiguous() if isinstance(value, Tensor) else value

        adjustment = Adjustment(*map(moved, self.adjustment))
        return RowLoss(*map(moved, self))._replace(adjustment=adjustment)

    def composed(self, logits: Tensor) -> Tensor:
        """Return the loss of logits (N, C), by functions of PyTorch alone."""
        known = known_labels(self.labels, ignore_index=self.ignore_index)
        adjusted = self.adjustment.of(logits, known)
        nll = F.cross_entropy(
            adjusted, self.labels, reduction="none", ignore_index=self.ignore_index
        )
        power, factor = (
            None if value is None else value.to(logits)[known]
            for value in (self.power, self.factor)
        )
        values = self.term.of(nll, power=power, size=self.size)
        values = values if factor is None else factor * values
        counted = sample_normalizer(
            self.labels,
            self.weight,
            normalize=self.normalize,
            ignore_index=self.ignore_index,
        )
        values = values.where(self.labels != self.ignore_index, 0)
        return reduce_values(values, reduction=self.reduction, normalizer=counted)


class MadeRows(NamedTuple):
    """A loss, and the gradient of its sum with respect to the logits."""

    value: Tensor  # (N,), or a scalar
    gradient: Tensor | None  # (N, C)


def is_on_device(logits: Tensor) -> bool:
    """Tell whether logits are where kernels run; a compiler makes its own."""
    return logits.is_cuda and not torch.compiler.is_compiling()


def device_loss(logits: Tensor, loss: RowLoss) -> Tensor | None:
    """Return a loss of logits (N, C) computed by kernels, or None where they are not for it.

    Returns:
        (N,), or a scalar, in float32.
    """
    if not are_for(logits, loss) or given_up.is_set():
        return None
    from . import _softmax_kernels as kernels

    if not kernels.AVAILABLE:
        return None
    loss = loss.beside(logits)
    wants = torch.is_grad_enabled() and logits.requires_grad
    try:
        # Triton starts kernels on the current device.
        with torch.cuda.device_of(logits):
            made = kernels.row_losses(_dense(logits.detach()), loss, with_gradient=wants)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a compiler, a driver, a cache: any of them
        _give_up(error)
        return None
    return GradientOfRows.apply(logits, made, loss) if wants else made.value


def compare(made: MadeRows, logits: Tensor, loss: RowLoss) -> None:
    """Compare what a kernel made first on this machine with the composition.

    It waits for the device, as the compiler has just done.

    Raises:
        ArithmeticError: they differ by more than the order of additions explains.
    """
    with torch.enable_grad():
        logits = logits.clone().requires_grad_()
        value = loss.composed(logits)
        (gradient,) = torch.autograd.grad(value.sum(), logits)
    pairs = [(made.value, value), (made.gradient, gradient)]
    for found, expected in pairs:
        if found is None:
            continue
        # The composed gradient of an ignored sample with a logit that is NaN is NaN.
        is_finite = expected.isfinite()
        right, made_there = expected.detach()[is_finite], found[is_finite]
        largest = right.abs().max().item() if right.numel() else 0.0
        if not torch.allclose(made_there, right, rtol=1e-3, atol=1e-4 * largest):
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


def are_for(logits: Tensor, loss: RowLoss) -> bool:
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
        and all(_is_vector(v, logits.shape[1]) for v in loss.of_classes())
        and (size is None or _is_vector(size, len(logits)))
        and forward_ad.unpack_dual(logits).tangent is None
    )


def _is_vector(values: Tensor, length: int) -> bool:
    """Tell whether there are so many values, constants to the gradient."""
    return values.shape == (length,) and not values.requires_grad


class GradientOfRows(torch.autograd.Function):
    """A loss of rows that is there already, and so is its gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, made: MadeRows, loss: RowLoss) -> Tensor:
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
