"""Value and gradient of the focal loss on sigmoids for targets 0 or 1."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from ._fused import Made

# Logits of a part, all of whose six tensors fit into a core's cache. With several threads each
# takes parts of its own, below the 32768 elements from which PyTorch shares an operation among its
# threads: a dozen operations a part would have all wait for the slowest a dozen times, for
# milliseconds where other programs want the processor too.
PART = 2**15 - 1
MAX_THREADS = 4  # more would wait for Python
# Logits that are worth a thread, which starts without memory of its own.
THREAD_LOGITS = 2**20
CERTAIN = 40  # from here on 1 - sigmoid is less than half of a last digit in float64, too


Part = tuple[slice, slice]  # of samples and outputs


class HardTargets(NamedTuple):
    """Targets 0 or 1: of each element, or labels that name the one positive output of a sample."""

    values: Tensor  # (N, C, L) of any type, or int64 labels (N, 1, L)
    are_labels: bool
    factor: Tensor | None  # (N, 1, L), 0 for a sample that does not count; None is 1
    ignored: Tensor | None = None  # (N, 1, L) bool: whose logits are whatever they are


def sigmoid_with_gradient(
    logits: Tensor,
    targets: HardTargets,
    *,
    gamma: float,
    alpha: float | None,
    divisor: Tensor | int,
) -> Made | None:
    """Return the sum of a_t f (1 - p_t)^gamma (-log p_t) over all elements / divisor.

    Returns:
        None for targets that are not all 0 or 1.
    """
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    N, L = targets.values.shape[0], targets.values.shape[2]
    inputs, outputs = logits.reshape(N, -1, L), gradient.view(N, -1, L)
    weights = (1.0, 1.0) if alpha is None else (1 - alpha, alpha)
    unit = 1 / float(divisor)
    way = _of_labels if targets.are_labels else _of_elements
    total = way(inputs, targets, outputs, gamma=gamma, weights=weights, unit=unit)
    return None if total is None else Made(logits.new_tensor(total), gradient)


def _of_labels(
    inputs: Tensor,
    targets: HardTargets,
    outputs: Tensor,
    *,
    gamma: float,
    weights: tuple[float, float],
    unit: float,
) -> float:
    """Write the gradient and return the loss: of all as negatives, and of the positives apart.

    A logit of minus infinity is a negative without a loss, and so stands where the positives are.
    """
    labels, (negative, positive) = targets.values, weights
    own = inputs.gather(1, labels).neg_()
    outputs.copy_(inputs)
    if targets.ignored is not None:  # a factor of 0 would leave NaN of infinite ones
        own.masked_fill_(targets.ignored, 0)
        outputs.masked_fill_(targets.ignored, 0)
    outputs.scatter_(1, labels, -math.inf)

    def finish(part: Part) -> float:
        factor = None if targets.factor is None else targets.factor[part[0]]
        return _finish(outputs[part], factor, gamma=gamma, unit=negative * unit)

    totals = _finish_all(finish, outputs)
    assert totals is not None
    total = _finish(own, targets.factor, gamma=gamma, unit=-positive * unit)
    outputs.scatter_(1, labels, own)
    return (negative * sum(totals) + positive * total) * unit


def _of_elements(
    inputs: Tensor,
    targets: HardTargets,
    outputs: Tensor,
    *,
    gamma: float,
    weights: tuple[float, float],
    unit: float,
) -> float | None:
    """Write the gradient and return the loss; None for targets that are not all 0 or 1."""
    negative, positive = weights
    # Not a scalar: with one, targets of 16 bits would be computed with in those, and rounded to 0.
    one = outputs.new_ones(1)

    def finish(part: Part) -> float | None:
        out = outputs[part]
        sign = torch.add(one, targets.values[part], alpha=-2, out=torch.empty_like(out))
        between = torch.addcmul(one, sign, sign, value=-1, out=out).view(-1)  # 0 of 0 and of 1
        if torch.dot(between, between).item() != 0:
            return None
        torch.mul(inputs[part], sign, out=out)
        factor = None if targets.factor is None else targets.factor[part[0]]
        if negative != 1 or positive != 1:
            weight = (sign * ((negative - positive) / 2)).add_((negative + positive) / 2)
            factor = weight if factor is None else weight.mul_(factor)
        total = _finish(out, factor, gamma=gamma, unit=unit)
        out.mul_(sign)
        return total

    totals = _finish_all(finish, outputs)
    return None if totals is None else sum(totals) * unit


def _finish(signed: Tensor, factor: Tensor | None, *, gamma: float, unit: float) -> float:
    """Return the sum of losses of logits as negatives; their slopes times `unit` replace them.

    -log p_t has the slope 1 - p_t, and 1 - p_t has p_t (1 - p_t).
    """
    odds = signed.clamp_max(CERTAIN).exp_()
    # As softplus has it; where log1p ends, the logit itself.
    nll = torch.log1p(odds)
    torch.maximum(nll, signed, out=nll)
    miss = odds.div_(odds + 1)  # 1 - p_t, without cancellation
    scale = _power(miss, gamma)
    if factor is not None:
        scale.mul_(factor)
    total = torch.mul(scale, nll, out=signed).sum().item()  # in a part its own precision will do
    slope = miss.add_(nll.addcmul_(nll, miss, value=-1), alpha=gamma)
    torch.addcmul(signed.new_zeros(()), slope, scale, value=unit, out=signed)
    return total


def _finish_all(finish: Callable[[Part], float | None], outputs: Tensor) -> list[float] | None:
    """Finish all parts, in threads where there are several; None as soon as one says so."""
    parts = _parts(outputs.shape, size=PART)
    count = min(torch.get_num_threads(), MAX_THREADS, outputs.numel() // THREAD_LOGITS)

    def finish_some(first: int, step: int) -> list[float] | None:
        totals = []
        for part in parts[first::step]:
            total = finish(part)
            if total is None:
                return None
            totals.append(total)
        return totals

    if count <= 1:
        return finish_some(0, 1)
    with ThreadPoolExecutor(count) as threads:
        found = list(threads.map(finish_some, range(count), itertools.repeat(count)))
    totals = [total for some in found if some is not None for total in some]
    return totals if len(totals) == len(parts) else None


def _parts(shape: torch.Size, *, size: int) -> list[Part]:
    """Cut (N, C, L) into samples or, where one is larger than `size`, into some of its outputs."""
    N, C, L = shape
    step = max(1, size // (C * L))
    width = C if size >= C * L else max(1, size // L)
    return [
        (slice(row, row + step), slice(column, column + width))
        for row in range(0, N, step)
        for column in range(0, C, width)
    ]


def _power(miss: Tensor, gamma: float) -> Tensor:
    """Return miss^gamma; for most exponents PyTorch's own takes five times as long."""
    if gamma in (0, 0.5, 1, 2, 3):
        return miss.pow(gamma)
    return miss.log().mul_(gamma).exp_()
