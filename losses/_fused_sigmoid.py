"""Value and gradient of the focal loss on sigmoids for targets 0 or 1."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ._fused import Made

# Logits of a part, all of whose eight tensors fit into a core's cache. With several threads each
# takes parts of its own, below the 32768 elements from which PyTorch shares an operation among its
# threads: fourteen operations a part would have all wait for the slowest fourteen times, for
# milliseconds where other programs want the processor too.
PART = 2**15 - 1
MAX_THREADS = 4  # more would wait for Python
# Logits that are worth a thread, which starts without memory of its own.
THREAD_LOGITS = 2**20


Part = tuple[slice, slice]  # of samples and outputs


class HardTargets(NamedTuple):
    """Targets 0 or 1 of elements, their own or from labels, and factors of samples."""

    targets: Tensor  # (N, C, L), or labels (N, 1, L)
    outputs: Tensor | None  # (C, 1), with labels: which of them is each output's positive
    factor: Tensor | None  # (N, 1, L); None is 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, C, L) of the elements."""
        N, C, L = self.targets.shape
        return N, C if self.outputs is None else len(self.outputs), L

    def signs(self, part: Part, *, like: Tensor) -> Tensor:
        """Return -1 for positives and 1 for negatives, (n, c, L)."""
        sign = torch.empty_like(like)
        if self.outputs is None:
            positive = self.targets[part]
        else:
            rows, columns = part
            positive = torch.eq(self.targets[rows], self.outputs[columns], out=sign)
        return torch.add(like.new_ones(()), positive, alpha=-2, out=sign)

    def are_hard(self, sign: Tensor) -> bool:
        """Tell whether signs are of targets 0 and 1."""
        if self.outputs is not None:
            return True
        sizes = sign.abs()
        return sizes.amin().item() == 1 == sizes.amax().item()

    def weigh(self, losses: Tensor, sign: Tensor, part: Part, *, alpha: float | None) -> Tensor:
        """Multiply losses in place by the factor of each element."""
        if alpha is not None:  # alpha for sign -1, 1 - alpha for sign 1
            losses.addcmul_(losses, sign, value=1 - 2 * alpha).mul_(0.5)
        return losses if self.factor is None else losses.mul_(self.factor[part[0]])


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
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    inputs, outputs = logits.reshape(targets.shape), gradient.view(targets.shape)
    unit = 1 / float(divisor)

    def finish(part: Part) -> Tensor | None:
        out = outputs[part]
        sign = targets.signs(part, like=out)
        if not targets.are_hard(sign):
            return None
        signed = torch.mul(inputs[part], sign, out=out)
        # -log p_t, in float64 exact up to 40; and 1 - p_t, without cancellation.
        nll, miss = F.softplus(signed, threshold=40), torch.sigmoid(signed)
        scale = targets.weigh(_power(miss, gamma), sign, part, alpha=alpha)
        total = torch.mul(scale, nll, out=out).sum()  # within a part its own precision will do
        slope = miss.add_(nll.addcmul_(nll, miss, value=-1), alpha=gamma).mul_(scale)
        torch.mul(slope, sign.mul_(unit), out=out)
        return total

    totals = _finish_all(finish, targets.shape)
    if totals is None:
        return None
    value = torch.stack(totals).sum(dtype=torch.float64).mul(unit)
    return Made(value.to(logits.dtype), gradient)


def _finish_all(
    finish: Callable[[Part], Tensor | None], shape: tuple[int, int, int]
) -> list[Tensor] | None:
    """Finish all parts, in threads where there are several; None as soon as one says so."""
    parts = _parts(shape, size=PART)
    count = min(torch.get_num_threads(), MAX_THREADS, math.prod(shape) // THREAD_LOGITS)

    def finish_some(first: int, step: int) -> list[Tensor] | None:
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


def _parts(shape: tuple[int, int, int], *, size: int) -> list[Part]:
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
