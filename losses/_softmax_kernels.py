"""Triton kernels of softmax losses on labels: a program for each row of logits.

It reads its row for the loss and, from the cache, once more for the gradient. `_device_softmax`
alone calls what is here, and only for tensors on a CUDA device.
"""

from __future__ import annotations

import functools

from torch import Tensor

from ._device import MadeRows
from ._device_softmax import check_on_trial
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
from ._sample_loss import SampleLoss

__all__ = ["AVAILABLE", "row_losses"]


@kernel
def _adjusted(
    logits: tl.tensor,
    columns: tl.tensor,
    label: tl.tensor,
    scale: tl.tensor,
    class_scale: tl.tensor,
    offset: tl.tensor,
    own: tl.tensor,
    C: tl.tensor,
) -> tl.tensor:
    """Return adjusted logits of one row in float32, -inf outside of it."""
    within = columns < C
    z = tl.load(logits + columns, mask=within, other=0.0).to(tl.float32)
    if scale is not None:
        z *= scale
    if class_scale is not None:
        z *= tl.load(class_scale + columns, mask=within, other=0.0).to(tl.float32)
    if offset is not None:
        z += tl.load(offset + columns, mask=within, other=0.0).to(tl.float32)
    if own is not None:
        z = tl.where(columns == label, z + tl.load(own + label).to(tl.float32), z)
    return tl.where(within, z, float("-inf"))


@kernel
def _term(
    nll: tl.tensor, label: tl.tensor, power: tl.tensor, gamma: tl.tensor, epsilon: tl.tensor
) -> tl.tensor:
    """Return v^gamma CE + epsilon u^(gamma + 1) and its derivative, as in `SampleTerm`."""
    value, slope, modulator, exponent = nll, 1.0, 1.0, 1.0
    u = miss(nll)
    if gamma is not None:
        q, v = nll, u
        if power is not None:
            q *= tl.load(power + label).to(tl.float32)
            v = miss(q)
        v = tl.maximum(v, 1.4210855e-14)  # eps^2, as in `focal_modulator`
        modulator, exponent = tl.exp2(gamma * tl.log2(v)), 1 + gamma
        value = modulator * nll
        slope = modulator * (1 + gamma * q * (1 - v) / v)
    if epsilon is not None:
        value += epsilon * modulator * u
        slope += epsilon * modulator * exponent * (1 - u)
    return value, slope


@kernel
def rows_kernel(  # noqa: PLR0913, PLR0915 - a kernel takes no objects and is one function
    logits: tl.tensor,
    labels: tl.tensor,
    values: tl.tensor,
    gradient: tl.tensor,
    scale: tl.tensor,
    class_scale: tl.tensor,
    offset: tl.tensor,
    own: tl.tensor,
    factor: tl.tensor,
    power: tl.tensor,
    size: tl.tensor,
    weight: tl.tensor,
    unit: tl.tensor,
    stride: tl.tensor,
    N: tl.tensor,
    C: tl.tensor,
    ignore_index: tl.tensor,
    gamma: tl.tensor,
    epsilon: tl.tensor,
    gain: tl.tensor,
    eps: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    """Write the loss of each sample, (N,), and its gradient, (N, C) or None, by one program each.

    Both are multiplied by what ``unit`` points to, or by `unit_of` where there are N to count.
    """
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(labels + row)
    counts = label != ignore_index
    label = tl.where(counts, label, 0)
    tl.device_assert((label >= 0) & (label < C), "a label is out of range")

    logits += row * stride
    columns = tl.arange(0, BLOCK)
    high = tl.full((BLOCK,), -3.4e38, tl.float32)  # not -inf, from which -inf cannot be taken
    total = tl.zeros((BLOCK,), tl.float32)
    true = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, C, BLOCK):
        at = start + columns
        z = _adjusted(logits, at, label, scale, class_scale, offset, own, C)
        higher = tl.maximum(high, z)
        total = total * tl.exp(high - higher) + tl.exp(z - higher)
        high, true = higher, tl.where(at == label, z, true)
    top = tl.max(high)
    log_total = tl.log(tl.sum(total * tl.exp(high - top)))
    nll = top - tl.sum(true) + log_total

    if unit is not None:
        gain *= tl.load(unit)
    if N is not None:
        gain *= unit_of(labels, weight, N, ignore_index)
    if size is not None:
        gain /= 2 * miss(nll) * tl.load(size + row).to(tl.float32) + eps
    if factor is not None:
        gain *= tl.load(factor + label).to(tl.float32)
    term = _term(nll, label, power, gamma, epsilon)
    tl.store(values + row, tl.where(counts, gain * term[0], 0.0))
    if gradient is not None:
        slope = tl.where(counts, gain * term[1], 0.0)
        if scale is not None:
            slope *= scale
        gradient += row * C
        for start in range(0, C, BLOCK):
            at = start + columns
            z = _adjusted(logits, at, label, scale, class_scale, offset, own, C)
            p = tl.exp(z - top - log_total)
            found = slope * tl.where(at == label, p - 1, p)
            if class_scale is not None:
                found *= tl.load(class_scale + at, mask=at < C, other=0.0).to(tl.float32)
            # Of samples that do not count, whatever their logits.
            found = tl.where(slope == 0, 0.0, found)
            tl.store(gradient + at, found, mask=at < C)


def row_losses(
    logits: Tensor, loss: SampleLoss, *, with_gradient: bool, is_trial: bool = False
) -> MadeRows:
    """Return a loss of logits (N, C), float32, whose classes lie side by side.

    What is compiled first is tried on drawn logits, whose loss is known by other means.

    Returns:
        The loss, (N,) or a scalar, and the gradient (N, C) of its sum if that is wanted.

    Raises:
        ArithmeticError: What was compiled has other numbers.
    """
    N, C = logits.shape
    values = logits.new_empty(N)
    gradient = logits.new_empty((N, C)) if with_gradient else None
    weight, count, unit = None, None, None
    if loss.reduction == "mean":
        weight = loss.weight if loss.normalize == "weights" else None
        if N <= MAX_COUNTED:
            count = N
        else:
            unit = logits.new_empty(())
            unit_kernel[(1,)](unit, loss.labels, weight, N, loss.ignore_index)
    scale, offset, own = loss.adjustment
    by_class = scale if isinstance(scale, Tensor) else None
    vectors = (by_class, offset, own, loss.factor, loss.power, loss.size, weight, unit)
    stride, gamma, epsilon = logits.stride(0), loss.term.gamma, loss.term.epsilon
    arguments = (
        logits,
        loss.labels,
        values,
        gradient,
        None if scale is None or by_class is not None else float(scale),
        *vectors,
        stride,
        count,
        C,
        loss.ignore_index,
        # Floats, for integers of them would be compiled for anew.
        float(gamma) or None,
        float(epsilon) or None,
        float(loss.term.gain),
        float(loss.term.eps),
        block_of(C),
    )
    key = (
        *(None if vector is None else vector.dtype for vector in vectors),
        *(logits.device, C, stride, loss.ignore_index, scale is None),
        *(with_gradient, count is None, gamma == 0, epsilon == 0),
    )

    def try_out() -> None:
        rows = min(N, TRIED_ROWS) if unit is None else MAX_COUNTED + 1
        trial = functools.partial(row_losses, with_gradient=with_gradient, is_trial=True)
        check_on_trial(trial, logits, loss, rows=rows)

    start_rows(rows_kernel, arguments, key, shape=(N, C), on_trial=None if is_trial else try_out)
    return MadeRows(values if loss.reduction == "none" else values.sum(), gradient)
