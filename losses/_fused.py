"""Losses of large batches on the CPU that make their gradient in the forward pass.

Composed of PyTorch's functions, a loss fills two to ten tensors of the logits' size, and above some
16 MB the memory of each goes back to the system and is fetched anew, page by page, the next time:
that costs more than the arithmetic. Here a part of the batch is finished, gradient included, while
it is in the processor's cache, and the gradient is all that stays. The composition remains the
definition of a loss: it runs wherever `can_fuse` says no, and is what second derivatives are of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from ._targets import check_labels, is_readable

# Below this number of logits the composition is as fast: what is spared costs less than starting
# some twenty more small operations.
MIN_LOGITS = 2**18
# Logits of a part. Softmax: so many that operations on its (n,) samples do not count, so few that
# those on its pixels stay small beside the gradient.
SOFTMAX_PART = 2**21
# Sigmoid, for each thread: all of its tensors fit into the cache of a core, and an operation is
# still large enough for PyTorch to share it among threads (32768).
SIGMOID_PART = 2**16

# From the cross-entropies of samples (n, ...), and values of theirs, to their losses.
Term = Callable[..., Tensor]


def can_fuse(logits: Tensor, *constants: Tensor | None) -> bool:
    """Tell whether many logits on the CPU want a first derivative, by them alone.

    Args:
        logits: Of any shape.
        constants: What else the loss depends on, such as class weights.
    """
    return (
        logits.numel() >= MIN_LOGITS
        and torch.is_grad_enabled()
        and logits.requires_grad
        and is_readable(logits)
        and type(logits) in (Tensor, torch.nn.Parameter)
        and not any(c is not None and c.requires_grad for c in constants)
        and not torch._C._are_functorch_transforms_active()
        and forward_ad.unpack_dual(logits).tangent is None
    )


class _Made(NamedTuple):
    value: Tensor
    gradient: Tensor


class _GradientInForward(torch.autograd.Function):
    """A loss whose gradient is there already; `composed` is the same loss for autograd."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, made: _Made, composed: Callable[[Tensor], Tensor]
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


class Adjustment(NamedTuple):
    """What a loss does to logits before the softmax: scale x + offset, less a margin at y."""

    scale: Tensor | None = None  # (C,), or a scalar
    offset: Tensor | None = None  # (C,)
    margin: Tensor | None = None  # (C,), of which only the true class's is subtracted

    def of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return adjusted logits, (N, C, ...), for labels (N, 1, ...)."""
        if self.scale is not None:
            logits = logits * _over_classes(self.scale, logits)
        if self.offset is not None:
            logits = logits + _over_classes(self.offset, logits)
        if self.margin is not None:
            logits = logits.scatter_add(1, labels, -self.margin.to(logits)[labels])
        return logits


UNADJUSTED = Adjustment()


def _over_classes(values: Tensor, logits: Tensor) -> Tensor:
    return values.to(logits).reshape(-1, *[1] * (logits.ndim - 2))


def fused_softmax(
    logits: Tensor,
    labels: Tensor,
    term: Term,
    *,
    values: Sequence[Tensor] = (),
    adjustment: Adjustment = UNADJUSTED,
    divisor: Tensor | float = 1.0,
    ignore_index: int = -100,
) -> Tensor:
    """Return sum_i term(CE_i, *values_i) / divisor, CE_i being sample i's cross-entropy.

    Args:
        logits: (N, C) or (N, C, ...) that `can_fuse`.
        labels: (N,) or (N, ...) int64.
        term: Gives the losses of samples from their cross-entropies and ``values``, element by
            element, so that autograd can differentiate it.
        values: What else `term` needs of each sample, constants of shape (N, ...).
        adjustment: What is done to the logits first.
        divisor: Of the sum, a scalar above 0.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1.
    """
    valid = labels != ignore_index
    labels = torch.where(valid, labels, 0)
    check_labels(labels, logits.shape[1])
    samples = _Samples(labels.unsqueeze(1), valid, tuple(values))
    loss = _SoftmaxLoss(samples, term, adjustment, divisor)
    return _GradientInForward.apply(logits, loss.with_gradient(logits.detach()), loss.composed)


class _Samples(NamedTuple):
    labels: Tensor  # (N, 1, ...) int64, 0 where not valid
    valid: Tensor  # (N, ...) bool
    values: tuple[Tensor, ...]  # (N, ...) each

    def part(self, rows: slice) -> _Samples:
        return _Samples(self.labels[rows], self.valid[rows], tuple(v[rows] for v in self.values))

    def sum(self, term: Term, nll: Tensor) -> Tensor:
        terms = term(nll.where(self.valid, 0), *self.values)
        return terms.where(self.valid, 0).sum()


class _SoftmaxLoss(NamedTuple):
    samples: _Samples
    term: Term
    adjustment: Adjustment
    divisor: Tensor | float

    def composed(self, logits: Tensor) -> Tensor:
        labels = self.samples.labels
        adjusted = self.adjustment.of(logits, labels)
        nll = F.cross_entropy(adjusted, labels.squeeze(1), reduction="none")
        return self.samples.sum(self.term, nll) / self.divisor

    def with_gradient(self, logits: Tensor) -> _Made:
        """The gradient is softmax - onehot times a slope of each sample, term'(CE)."""
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        total = torch.zeros((), dtype=torch.float64)
        step = max(1, SOFTMAX_PART // logits[0].numel())
        for start in range(0, len(logits), step):
            rows = slice(start, start + step)
            samples, out = self.samples.part(rows), gradient[rows]
            adjusted = self.adjustment.of(logits[rows], samples.labels)
            nll = _softmax_into(out, adjusted, samples.labels).requires_grad_()
            with torch.enable_grad():
                value = samples.sum(self.term, nll)
            (slope,) = torch.autograd.grad(value, nll)
            total += value.detach()
            out.scatter_add_(1, samples.labels, out.new_tensor(-1.0).expand(samples.labels.shape))
            out.mul_((slope / self.divisor).unsqueeze(1))
        if self.adjustment.scale is not None:
            gradient.mul_(_over_classes(self.adjustment.scale, gradient))
        return _Made((total / self.divisor).to(logits.dtype), gradient)


def _softmax_into(out: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Write the softmax of logits (n, C, ...) to `out`; return the cross-entropies, (n, ...)."""
    if logits.ndim > 2:
        # Over any dimension but the last, PyTorch's softmax takes twice as long as its log_softmax.
        torch.log_softmax(logits, dim=1, out=out)
        nll = -out.gather(1, labels).squeeze(1)
        out.exp_()
        return nll
    torch.softmax(logits, dim=1, out=out)
    # -log p_y, without p_y, which may be 0: the largest p is at least 1 / C.
    behind = logits.amax(dim=1) - logits.gather(1, labels).squeeze(1)
    return behind - out.amax(dim=1).log()


def fused_sigmoid(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float,
    alpha: float | None = None,
    factor: Tensor | None = None,
    divisor: Tensor | float = 1.0,
) -> Tensor | None:
    """Return the sum of a_t f (1 - p_t)^gamma (-log p_t) over all elements / divisor.

    Args:
        logits: (N, C) or (N, C, ...) that `can_fuse`, or (N,).
        targets: One for each logit, of any type; or (N, ...) labels, each of which is a positive
            for its own output and a negative for the others, and of one output (N, 1, ...) a
            positive if it is 1.
        gamma: How strongly elements that are already right are played down.
        alpha: Factor of positives, negatives get 1 - alpha; None is no factor for either.
        factor: Of samples, (N, ...): 0 for one that does not count. None is 1.
        divisor: Of the sum, a scalar above 0.

    Returns:
        A scalar; None for targets that are not all 0 or 1.
    """
    N, C, _ = _three_dimensions(logits)
    outputs = None
    if targets.shape == logits.shape:
        targets = targets.reshape(N, C, -1)
    else:
        first = 1 if C == 1 else 0
        outputs = torch.arange(first, first + C, dtype=logits.dtype).unsqueeze(1)
        targets = targets.reshape(N, 1, -1).to(logits.dtype)
    factor = None if factor is None else factor.reshape(N, 1, -1)
    loss = _SigmoidLoss(_Elements(targets, outputs, factor), gamma, alpha, divisor)
    made = loss.with_gradient(logits.detach())
    return None if made is None else _GradientInForward.apply(logits, made, loss.composed)


class _Elements(NamedTuple):
    targets: Tensor  # (N, C, L), or labels (N, 1, L)
    outputs: Tensor | None  # (C, 1), with labels: which of them is each output's positive
    factor: Tensor | None  # (N, 1, L)

    def signs(self, rows: slice, columns: slice, *, like: Tensor) -> Tensor:
        """Return -1 for positives and 1 for negatives, (n, c, L)."""
        sign = torch.empty_like(like)
        if self.outputs is None:
            sign.copy_(self.targets[rows, columns])
        else:
            torch.eq(self.targets[rows], self.outputs[columns], out=sign)
        return sign.mul_(-2).add_(1)

    def are_hard(self, sign: Tensor) -> bool:
        """Tell whether signs are of targets 0 and 1."""
        if self.outputs is not None:
            return True
        low, high = sign.abs().aminmax()
        return bool(low == 1) and bool(high == 1)

    def weigh(self, losses: Tensor, sign: Tensor, rows: slice, *, alpha: float | None) -> Tensor:
        """Multiply losses in place by the factor of each element."""
        if alpha is not None:  # alpha for sign -1, 1 - alpha for sign 1
            losses.addcmul_(losses, sign, value=1 - 2 * alpha).mul_(0.5)
        return losses if self.factor is None else losses.mul_(self.factor[rows])


class _SigmoidLoss(NamedTuple):
    elements: _Elements
    gamma: float
    alpha: float | None
    divisor: Tensor | float

    def composed(self, logits: Tensor) -> Tensor:
        every = slice(None)
        logits = logits.reshape(_three_dimensions(logits))
        sign = self.elements.signs(every, every, like=logits.detach())
        nll, log_miss = _softplus(sign * logits), -_softplus(-sign * logits)
        weights = self.elements.weigh(torch.ones_like(sign), sign, every, alpha=self.alpha)
        # Not a power of the sigmoid: its slope is infinite where the sigmoid underflows.
        return (weights * torch.exp(self.gamma * log_miss) * nll).sum() / self.divisor

    def with_gradient(self, logits: Tensor) -> _Made | None:
        """By the signed logit, -log p_t has the slope 1 - p_t, and 1 - p_t has p_t (1 - p_t)."""
        shape = _three_dimensions(logits)
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        inputs, outputs = logits.reshape(shape), gradient.view(shape)
        total = torch.zeros((), dtype=torch.float64)
        for rows, columns in _parts(shape, size=SIGMOID_PART * torch.get_num_threads()):
            out = outputs[rows, columns]
            sign = self.elements.signs(rows, columns, like=out)
            if not self.elements.are_hard(sign):
                return None
            signed = torch.mul(inputs[rows, columns], sign, out=out)
            nll, miss = _softplus(signed), torch.sigmoid(signed)  # -log p_t, 1 - p_t
            scale = self.elements.weigh(_power(miss, self.gamma), sign, rows, alpha=self.alpha)
            total += torch.mul(scale, nll, out=out).sum()
            slope = nll.addcmul_(nll, miss, value=-1).mul_(self.gamma).add_(miss).mul_(scale)
            torch.mul(slope, sign.mul_(1 / self.divisor), out=out)
        return _Made((total / self.divisor).to(logits.dtype), gradient)


def _softplus(logits: Tensor) -> Tensor:
    """Return log(1 + exp(x)), which is x itself in float64 only from 40 on, not from torch's 20."""
    return F.softplus(logits, threshold=40)


def _power(miss: Tensor, gamma: float) -> Tensor:
    """Return miss^gamma; for most exponents PyTorch's own takes five times as long."""
    if gamma in (0, 0.5, 1, 2, 3):
        return miss.pow(gamma)
    return miss.log().mul_(gamma).exp_()


def _three_dimensions(logits: Tensor) -> tuple[int, int, int]:
    """Return samples, outputs and positions of logits (N,), (N, C) or (N, C, ...)."""
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
