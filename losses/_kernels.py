"""What Triton kernels of losses share: how they are compiled, and how samples are counted.

Where Triton is not installed kernels are functions that nobody calls.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:  # not on macOS, nor with a PyTorch without CUDA
    triton = tl = None

__all__ = [
    "AVAILABLE",
    "MAX_COUNTED",
    "TRIED_ROWS",
    "block_of",
    "compiled",
    "kernel",
    "miss",
    "start_rows",
    "tl",
    "unit_kernel",
    "unit_of",
]

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


def kernel(function: Callable[..., Any]) -> Any:
    """Return a function for the device, compiled for integers and addresses of any value."""
    if triton is None:
        return function
    parameters = inspect.signature(function).parameters.items()
    names = [name for name, parameter in parameters if "constexpr" not in parameter.annotation]
    return triton.jit(function, do_not_specialize=names, do_not_specialize_on_alignment=names)


@kernel
def miss(nll: tl.tensor) -> tl.tensor:
    """Return 1 - exp(-nll), by its series where that would cancel."""
    series = 1.0
    for k in tl.static_range(7):
        series = 1 - nll / (8 - k) * series
    return tl.where(nll < 0.5, nll * series, 1 - tl.exp(-nll))


@kernel
def unit_of(
    labels: tl.tensor, weight: tl.tensor, N: tl.tensor, ignore_index: tl.tensor
) -> tl.tensor:
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


@kernel
def unit_kernel(
    unit: tl.tensor, labels: tl.tensor, weight: tl.tensor, N: tl.tensor, ignore_index: tl.tensor
) -> None:
    """Write `unit_of`."""
    tl.store(unit, unit_of(labels, weight, N, ignore_index))


@functools.cache
def block_of(num_classes: int) -> int:
    return min(triton.next_power_of_2(num_classes), MAX_BLOCK)


# What is compiled already, by all that Triton compiles anew for. To find that out for itself at
# every call takes it as long as five operations of PyTorch.
compiled: dict[tuple[object, ...], Any] = {}


def start_rows(
    function: Any,
    arguments: tuple[object, ...],
    key: tuple[object, ...],
    *,
    shape: tuple[int, int],
    on_trial: Callable[[], None] | None,
) -> None:
    """Start a program for each row of logits of a shape (N, C).

    Args:
        function: A kernel, whose last argument is the block that it takes a row in.
        arguments: All of its arguments.
        key: All of them that it is compiled for, and their types.
        shape: (N, C).
        on_trial: Raises an error if what was compiled has other numbers than it should; None where
            this is the trial.
    """
    N, C = shape
    key = (function.__name__, *key)
    if key in compiled:
        compiled[key][(N, 1, 1)](*arguments)
        return
    warps = max(1, block_of(C) // LOGITS_PER_WARP)
    found = function[(N,)](*arguments, num_warps=warps, **OPTIONS)
    if on_trial is not None:
        on_trial()
        if found is not None:  # by the interpreter
            compiled[key] = found
