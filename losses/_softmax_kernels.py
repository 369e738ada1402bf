"""Triton kernels of softmax losses on labels: a program for each row of logits.

It reads its row for the loss and, from the cache, once more for the gradient. `_device_softmax`
alone calls what is here, and only for tensors on a CUDA device. Where Triton is not installed the
kernels are functions that nobody calls.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ._device_softmax import MadeRows, check_on_trial
from ._sample_loss import SampleLoss

try:
    import triton
    import triton.language as tl
except ImportError:  # not on macOS, nor with a PyTorch without CUDA
    triton = tl = None

AVAILABLE = triton is not None
# Logits that a program holds at once: a longer row takes it several turns.
MAX_BLOCK = 4096
LOGITS_PER_WARP = 512
TRIED_ROWS = 8
# So many labels each program counts by itself; of more than that one program does it before.
MAX_COUNTED = 1024
# A label out of range stops the device, as it does in PyTorch's own loss. The assertion is compiled
# in debug mode alone, which would also check every sum of integers.
OPTIONS: dict[str, Any] = {"debug": True, "sanitize_overflow": False}


def _kernel(function: Callable[..., Any]) -> Any:
    """Return a function for the device, compiled for integers and addresses of any value."""
    if triton is None:
        return function
    parameters = inspect.signature(function).parameters.items()
    names = [name for name, parameter in parameters if "constexpr" not in parameter.annotation]
    return triton.jit(function, do_not_specialize=names, do_not_specialize_on_alignment=names)


@_kernel
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


@_kernel
def _miss(nll: tl.tensor) -> tl.tensor:
    """Return 1 - exp(-nll), by its series where that would cancel."""
    series = 1.0
    for k in tl.static_range(7):
        series = 1 - nll / (8 - k) * series
    return tl.where(nll < 0.5, nll * series, 1 - tl.exp(-nll))


@_kernel
def _term(
    nll: tl.tensor, label: tl.tensor, power: tl.tensor, gamma: tl.tensor, epsilon: tl.tensor
) -> tl.tensor:
    """Return v^gamma CE + epsilon u^(gamma + 1) and its derivative, as in `SampleTerm`."""
    value, slope, modulator, exponent = nll, 1.0, 1.0, 1.0
    u = _miss(nll)
    if gamma is not None:
        q, v = nll, u
        if power is not None:
            q *= tl.load(power + label).to(tl.float32)
            v = _miss(q)
        v = tl.maximum(v, 1.4210855e-14)  # eps^2, as in `focal_modulator`
        modulator, exponent = tl.exp2(gamma * tl.log2(v)), 1 + gamma
        value = modulator * nll
        slope = modulator * (1 + gamma * q * (1 - v) / v)
    if epsilon is not None:
        value += epsilon * modulator * u
        slope += epsilon * modulator * exponent * (1 - u)
    return value, slope


@_kernel
def _unit(labels: tl.tensor, weight: tl.tensor, N: tl.tensor, ignore_index: tl.tensor) -> tl.tensor:
    """Return one over how many samples count, or over the sum of their weights; 1 for none."""
    rows = tl.arange(0, 1024)
    amount = tl.zeros((1024,), tl.float32)
    for start in range(0, N, 1024):
        at = start + rows
        label = tl.load(labels + at, mask=at < N, other=0)
        counts = (at < N) & (label != ignore_index)
        if weight is None:
            amount += counts.to(tl.float32)
        else:
            amount += tl.load(weight + label, mask=counts, other=0.0).to(tl.float32)
    total = tl.sum(amount)
    return 1 / tl.where(total > 0, total, 1.0)


@_kernel
def unit_kernel(
    unit: tl.tensor, labels: tl.tensor, weight: tl.tensor, N: tl.tensor, ignore_index: tl.tensor
) -> None:
    """Write `_unit`."""
    tl.store(unit, _unit(labels, weight, N, ignore_index))


@_kernel
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

    Both are multiplied by what ``unit`` points to, or by `_unit` where there are N to count.
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
        gain *= _unit(labels, weight, N, ignore_index)
    if size is not None:
        gain /= 2 * _miss(nll) * tl.load(size + row).to(tl.float32) + eps
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


# What is compiled already, by all that Triton compiles anew for. To find that out for itself at
# every call takes it as long as five operations of PyTorch.
_compiled: dict[tuple[object, ...], Any] = {}


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
        _block(C),
    )
    key = (
        *(None if vector is None else vector.dtype for vector in vectors),
        *(logits.device, C, stride, loss.ignore_index, scale is None),
        *(with_gradient, count is None, gamma == 0, epsilon == 0),
    )
    if key in _compiled:
        _compiled[key][(N, 1, 1)](*arguments)
    else:
        warps = max(1, _block(C) // LOGITS_PER_WARP)
        compiled = rows_kernel[(N,)](*arguments, num_warps=warps, **OPTIONS)
        if not is_trial:
            rows = min(N, TRIED_ROWS) if unit is None else MAX_COUNTED + 1
            trial = functools.partial(row_losses, with_gradient=with_gradient, is_trial=True)
            check_on_trial(trial, logits, loss, rows=rows)
            if compiled is not None:  # by the interpreter
                _compiled[key] = compiled
    return MadeRows(values if loss.reduction == "none" else values.sum(), gradient)


@functools.cache
def _block(num_classes: int) -> int:
    return min(triton.next_power_of_2(num_classes), MAX_BLOCK)
