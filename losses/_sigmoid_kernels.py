"""A Triton kernel of the focal loss on sigmoids: a program for each row of logits, read once.

`_device_sigmoid` alone calls what is here, and only for tensors on a CUDA device.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from torch import Tensor

from ._device import MadeRows
from ._device_sigmoid import check_on_trial
from ._kernels import (
    AVAILABLE,
    MAX_COUNTED,
    TRIED_ROWS,
    block_of,
    kernel,
    miss,
    start_rows,
    tl,
    unit_kernel,
    unit_of,
)

if TYPE_CHECKING:
    from ._element_loss import ElementLoss

__all__ = ["AVAILABLE", "row_losses"]


@kernel
def _log1p(u: tl.tensor) -> tl.tensor:
    """Return log(1 + u) of 0 to 1 to the last digits, as 2 artanh(u / (2 + u)) in its series."""
    s = u / (2 + u)
    square = s * s
    series = 1.0 / 15
    for k in tl.static_range(7):
        series = 1.0 / (13 - 2 * k) + square * series
    return 2 * s * series


@kernel
def _of_signed(z: tl.tensor, gamma: tl.tensor) -> tl.tensor:
    """Return sigmoid(z)^gamma softplus(z), the loss of a negative, and its derivative."""
    u = tl.exp(-tl.abs(z))
    rest = _log1p(u)
    nll = tl.maximum(z, 0.0) + rest
    missed = tl.where(z > 0, 1.0, u) / (1 + u)
    value, slope = nll, missed
    if gamma is not None:
        hit = tl.where(z > 0, u, 1.0) / (1 + u)
        # Its logarithm is -softplus(-z), finite where the sigmoid underflows.
        modulator = tl.exp(-gamma * (tl.maximum(-z, 0.0) + rest))
        value = modulator * nll
        slope = modulator * (missed + gamma * nll * hit)
    return value, slope


@kernel
def _of_share(x: tl.tensor, share: tl.tensor, gamma: tl.tensor) -> tl.tensor:
    """Return (1 - exp(-b))^gamma b and its derivative, b the cross-entropy of a share of a one."""
    u = tl.exp(-tl.abs(x))
    rest = _log1p(u)
    of_zero = tl.where(x > 0, 1.0, u) / (1 + u)
    of_one = tl.where(x > 0, u, 1.0) / (1 + u)
    nll = (1 - share) * (tl.maximum(x, 0.0) + rest) + share * (tl.maximum(-x, 0.0) + rest)
    value, slope = nll, (1 - share) * of_zero - share * of_one
    if gamma is not None:
        v = tl.maximum(miss(nll), 1.4210855e-14)  # eps^2, as in `focal_modulator`
        modulator = tl.exp2(gamma * tl.log2(v))
        value = modulator * nll
        slope *= modulator * (1 + gamma * nll * (1 - v) / v)
    return value, slope


@kernel
def elements_kernel(  # noqa: PLR0913 - a kernel takes no objects
    logits: tl.tensor,
    labels: tl.tensor,
    shares: tl.tensor,
    values: tl.tensor,
    gradient: tl.tensor,
    weight: tl.tensor,
    unit: tl.tensor,
    stride: tl.tensor,
    N: tl.tensor,
    C: tl.tensor,
    first: tl.tensor,
    ignore_index: tl.tensor,
    gamma: tl.tensor,
    positive: tl.tensor,
    negative: tl.tensor,
    gain: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Write the sum of each row's losses, (N,), and its gradient, (N, C) or None.

    Of ``labels`` (N,), where ``first`` is that of the first output, or of ``shares`` (N, C) of a
    one. Both are multiplied by ``gain`` and by what ``unit`` points to, or by `unit_of` where there
    are N to count.
    """
    row = tl.program_id(0).to(tl.int64)
    if unit is not None:
        gain *= tl.load(unit)
    if N is not None:
        gain *= unit_of(labels, None, N, ignore_index)
    counts, label = True, 0
    if labels is not None:
        label = tl.load(labels + row)
        counts = label != ignore_index
        label = tl.where(counts, label, 0)
        tl.device_assert((label >= 0) & (label < C + first), "a label is out of range")
        if weight is not None:
            gain *= tl.load(weight + label).to(tl.float32)
        label -= first

    logits += row * stride
    columns = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, C, BLOCK):
        at = start + columns
        within = at < C
        x = tl.load(logits + at, mask=within, other=0.0).to(tl.float32)
        if labels is not None:
            is_own = at == label
            found = _of_signed(tl.where(is_own, -x, x), gamma)
            factor = tl.where(is_own, positive, negative)
            slope = tl.where(is_own, -found[1], found[1])
        else:
            share = tl.load(shares + row * C + at, mask=within, other=0.0).to(tl.float32)
            found = _of_share(x, share, gamma)
            factor = negative + share * (positive - negative)
            slope = found[1]
        # Not of samples that do not count, whatever their logits.
        total += tl.where(within & counts, factor * found[0], 0.0)
        if gradient is not None:
            slope = tl.where(within & counts, gain * factor * slope, 0.0)
            tl.store(gradient + row * C + at, slope, mask=within)
    tl.store(values + row, tl.where(counts, gain * tl.sum(total), 0.0))


def row_losses(
    logits: Tensor, loss: ElementLoss, *, with_gradient: bool, is_trial: bool = False
) -> MadeRows:
    """Return a loss of logits (N, C), float32, whose outputs lie side by side.

    What is compiled first is tried on drawn logits, whose loss is known by other means.

    Returns:
        The loss, a scalar, and its gradient (N, C) if that is wanted.

    Raises:
        ArithmeticError: What was compiled has other numbers.
    """
    N, C = logits.shape
    values = logits.new_empty(N)
    gradient = logits.new_empty((N, C)) if with_gradient else None
    labels, shares = (loss.targets, None) if loss.are_labels(logits) else (None, loss.targets)
    unit, count, gain = None, None, 1.0
    if loss.reduction == "mean":
        if loss.normalize == "elements":
            gain /= C
        if shares is not None and loss.normalize == "positives":
            unit = shares.sum(dtype=logits.dtype).clamp_min_(1).reciprocal_()
        elif shares is not None:
            gain /= N
        elif N <= MAX_COUNTED:
            count = N
        else:
            unit = logits.new_empty(())
            unit_kernel[(1,)](unit, labels, None, N, loss.ignore_index)
    alpha = loss.alpha
    positive, negative = (1.0, 1.0) if alpha is None else (float(alpha), 1 - float(alpha))
    first = int(C == 1)  # the label of a single output is its target
    stride = logits.stride(0)
    arguments = (
        *(logits, labels, shares, values, gradient, loss.weight, unit),
        *(stride, count, C, first, loss.ignore_index),
        # A float, for integers of it would be compiled for anew.
        *(float(loss.gamma) or None, positive, negative, gain, block_of(C)),
    )
    key = (
        *(None if vector is None else vector.dtype for vector in (labels, shares, loss.weight)),
        *(logits.device, C, stride, first, loss.ignore_index),
        *(with_gradient, count is None, unit is None, loss.gamma == 0),
    )

    def try_out() -> None:
        rows = min(N, TRIED_ROWS) if labels is None or unit is None else MAX_COUNTED + 1
        trial = functools.partial(row_losses, with_gradient=with_gradient, is_trial=True)
        check_on_trial(trial, logits, loss, rows=rows)

    start_rows(
        elements_kernel, arguments, key, shape=(N, C), on_trial=None if is_trial else try_out
    )
    return MadeRows(values.sum(), gradient)
