"""Losses of large batches on the CPU that make their gradient in the forward pass.

Composed of PyTorch's functions, a loss fills two to ten tensors of the logits' size, and above some
16 MB the memory of each goes back to the system and is fetched anew, page by page, the next time:
that costs more than the arithmetic. Here a part of the batch is finished, gradient included, while
it is in the processor's cache, and the gradient is all that stays. The composition remains the
definition of a loss: it runs wherever `can_fuse` says no, and is what second derivatives are of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from ._adjustment import Adjustment
from ._counts import over_classes
from ._targets import is_readable

# Below this number of logits the composition is as fast: what is spared costs less than starting
# some twenty small operations. The composition on sigmoids has more to spare.
MIN_LOGITS = {"softmax": 2**18, "sigmoid": 2**16}
# Logits of a part whose softmax is taken: so many that two dozen operations on its (n,) samples do
# not count, so few that those on its (n, ...) pixels stay small beside the gradient.
SOFTMAX_PART = 2**20
# A probability below this may have lost digits to underflow, and its logarithm with them.
TINY = 1e-30
# Logits of a part, for each thread, whose sigmoids are taken: all of its tensors fit into a core's
# cache, and an operation is still large enough for PyTorch to share it among threads (32768).
SIGMOID_PART = 2**17

# From the cross-entropies of samples (n, ...), and values of theirs, to their losses.
Term = Callable[..., Tensor]


def can_fuse(
    activation: Literal["softmax", "sigmoid"], logits: Tensor, *constants: Tensor | None
) -> bool:
    """Tell whether many logits on the CPU want a first derivative, by them alone.

    Args:
        activation: What the logits go through: how many are many depends on it.
        logits: Of any shape.
        constants: What else the loss depends on, such as class weights.
    """
    return (
        is_readable(logits)
        and logits.numel() >= MIN_LOGITS[activation]
        and torch.is_grad_enabled()
        and logits.requires_grad
        and type(logits) in (Tensor, torch.nn.Parameter)
        and not any(c is not None and c.requires_grad for c in constants)
        and not torch._C._are_functorch_transforms_active()
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
        elif outer[0] != 1:  # not in place: with retain_graph it is asked for again
            gradient = gradient * outer[0]
        return gradient, None, None


class Samples(NamedTuple):
    """Labels of samples, which of them count, and what else their losses depend on."""

    labels: Tensor  # (N, ...) int64, 0 where not valid
    valid: Tensor  # (N, ...) bool
    values: tuple[Tensor | None, ...]  # (N, ...) each

    def part(self, rows: slice) -> Samples:
        """Return some of the samples."""
        values = (None if value is None else value[rows] for value in self.values)
        return Samples(self.labels[rows], self.valid[rows], tuple(values))


def softmax_with_gradient(
    logits: Tensor,
    samples: Samples,
    *,
    term: Term,
    adjustment: Adjustment,
    divisor: Tensor | float,
) -> Made:
    """Return sum_i term(CE_i, *values_i) / divisor over the samples that count.

    The gradient with respect to adjusted logits is softmax - onehot times a slope of each sample,
    the derivative of `term` by the cross-entropy.
    """
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    total = torch.zeros((), dtype=torch.float64)
    step = max(1, SOFTMAX_PART // logits[0].numel())
    for start in range(0, len(logits), step):
        rows = slice(start, start + step)
        part, out = samples.part(rows), gradient[rows]
        nll = _softmax_into(out, adjustment.of(logits[rows], part.labels), part.labels)
        with torch.enable_grad():
            nll.requires_grad_()
            value = term(nll.where(part.valid, 0), *part.values).sum()
        (slope,) = torch.autograd.grad(value, nll)
        total += value.detach()
        labels = part.labels.unsqueeze(1)
        out.scatter_add_(1, labels, out.new_tensor(-1.0).expand(labels.shape))
        if isinstance(adjustment.scale, Tensor):
            out.mul_(over_classes(adjustment.scale, out))
        elif adjustment.scale is not None:
            slope *= adjustment.scale
        out.mul_(slope.div_(divisor).unsqueeze(1))
    return Made((total / divisor).to(logits.dtype), gradient)


def _softmax_into(out: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Write the softmax of logits (n, C, ...) to `out`; return the cross-entropies, (n, ...)."""
    at = labels.unsqueeze(1)
    if logits.ndim > 2:
        # Over a dimension that is not the last, softmax takes twice as long as log_softmax.
        torch.log_softmax(logits, dim=1, out=out)
        nll = -out.gather(1, at).squeeze(1)
        out.exp_()
        return nll
    torch.softmax(logits, dim=1, out=out)
    likelihood = out.gather(1, at).squeeze(1)
    nll = -likelihood.log()
    tiny = likelihood < TINY
    if tiny.any():
        nll[tiny] = F.cross_entropy(logits[tiny], labels[tiny], reduction="none")
    return nll


class HardTargets(NamedTuple):
    """Targets 0 or 1 of elements, their own or from labels, and factors of samples."""

    targets: Tensor  # (N, C, L), or labels (N, 1, L)
    outputs: Tensor | None  # (C, 1), with labels: which of them is each output's positive
    factor: Tensor | None  # (N, 1, L); None is 1

    def signs(self, rows: slice, columns: slice, *, like: Tensor) -> Tensor:
        """Return -1 for positives and 1 for negatives, (n, c, L)."""
        sign = torch.empty_like(like)
        if self.outputs is None:
            torch.mul(self.targets[rows, columns], -2, out=sign)
        else:
            torch.eq(self.targets[rows], self.outputs[columns], out=sign).mul_(-2)
        return sign.add_(1)

    def are_hard(self, sign: Tensor) -> bool:
        """Tell whether signs are of targets 0 and 1."""
        if self.outputs is not None:
            return True
        sizes = sign.abs()
        return sizes.amin().item() == 1 == sizes.amax().item()

    def weigh(self, losses: Tensor, sign: Tensor, rows: slice, *, alpha: float | None) -> Tensor:
        """Multiply losses in place by the factor of each element."""
        if alpha is not None:  # alpha for sign -1, 1 - alpha for sign 1
            losses.addcmul_(losses, sign, value=1 - 2 * alpha).mul_(0.5)
        return losses if self.factor is None else losses.mul_(self.factor[rows])


def sigmoid_with_gradient(
    logits: Tensor,
    targets: HardTargets,
    *,
    gamma: float,
    alpha: float | None,
    divisor: Tensor | float,
) -> Made | None:
    """Return the sum of a_t f (1 - p_t)^gamma (-log p_t) over all elements / divisor.

    By the signed logit, -log p_t has the slope 1 - p_t, and 1 - p_t has p_t (1 - p_t).

    Returns:
        None for targets that are not all 0 or 1.
    """
    shape = three_dimensions(logits)
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    inputs, outputs = logits.reshape(shape), gradient.view(shape)
    total, unit = torch.zeros((), dtype=torch.float64), 1 / float(divisor)
    for rows, columns in _parts(shape, size=SIGMOID_PART * torch.get_num_threads()):
        out = outputs[rows, columns]
        sign = targets.signs(rows, columns, like=out)
        if not targets.are_hard(sign):
            return None
        signed = torch.mul(inputs[rows, columns], sign, out=out)
        # -log p_t, in float64 exact up to 40; and 1 - p_t, without cancellation.
        nll, miss = F.softplus(signed, threshold=40), torch.sigmoid(signed)
        scale = targets.weigh(_power(miss, gamma), sign, rows, alpha=alpha)
        total += torch.mul(scale, nll, out=out).sum()
        slope = nll.addcmul_(nll, miss, value=-1).mul_(gamma).add_(miss).mul_(scale)
        torch.mul(slope, sign.mul_(unit), out=out)
    return Made((total / divisor).to(logits.dtype), gradient)


def _power(miss: Tensor, gamma: float) -> Tensor:
    """Return miss^gamma; for most exponents PyTorch's own takes five times as long."""
    if gamma in (0, 0.5, 1, 2, 3):
        return miss.pow(gamma)
    return miss.log().mul_(gamma).exp_()


def three_dimensions(logits: Tensor) -> tuple[int, int, int]:
    """Return how many samples, outputs and positions (N,), (N, C) or (N, C, ...) logits have."""
    N, C = len(logits), logits.shape[1] if logits.ndim > 1 else 1
    return N, C, logits[0].numel() // C


def _parts(shape: tuple[int, int, int], *, size: int) -> Iterator[tuple[slice, slice]]:
    """Cut (N, C, L) into samples or, where one is larger than `size`, into some of its outputs."""
    N, C, L = shape
    step = max(1, size // (C * L))
    width = C if size >= C * L else max(1, size // L)
    for row in range(0, N, step):
        for column in range(0, C, width):
            yield slice(row, row + step), slice(column, column + width)
