"""Best of n: what a search of n trials can be expected to find, in closed form over its values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.tuning.search.schema import Direction


class BestOfN(NamedTuple):
    """For n = 1 ... N draws (N,): the best value expected, and where 8 of 10 searches end."""

    draws: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def best_of_n(values: Sequence[float], *, direction: Direction) -> BestOfN:
    """Return the best of n values drawn without replacement from the N observed ones.

    With the values sorted from worst to best, v_1 ... v_N, the best of n is among the first i with
    probability C(i, n) / C(N, n). Its expectation is the unbiased estimator of Tang et al. (2020,
    "Showing Your Work Doesn't Always Work"); drawing with replacement, as Dodge et al. (2019) do,
    underestimates it. ``low`` and ``high`` are the 10 % and 90 % quantiles.

    The draws are taken as exchangeable. A sampler that learns finds its best late, so for it the
    curve says how good its values are, and :func:`best_so_far` how soon it had them.

    Args:
        values: finite, at least one, in any order.
        direction: whether more is better.

    >>> [round(x, 3) for x in best_of_n([0.1, 0.5, 0.3], direction="maximize").mean.tolist()]
    [0.3, 0.433, 0.5]
    """
    sign = 1.0 if direction == "maximize" else -1.0
    ordered = np.sort(sign * np.asarray(values, dtype=float))
    number = len(ordered)
    assert number > 0 and np.isfinite(ordered).all()
    rank = np.arange(1, number + 1)
    within = np.ones(number)  # C(rank, n) / C(N, n), from one n to the next
    # Row by row: all rows of thousands of trials would fill a memory of gigabytes.
    mean, ends = np.empty(number), np.empty((number, 2), dtype=np.int64)
    for n in range(1, number + 1):
        within = within * np.maximum(rank - n + 1, 0) / (number - n + 1)
        mean[n - 1] = np.diff(within, prepend=0.0) @ ordered
        # Rounding must not push a quantile past the last value.
        ends[n - 1] = within.searchsorted([0.1 - 1e-12, 0.9 - 1e-12])
    low, high = ordered[ends.T]
    if direction == "minimize":
        low, high = high, low
    return BestOfN(rank, sign * mean, sign * low, sign * high)


def best_so_far(values: Sequence[float], *, direction: Direction) -> npt.NDArray[np.float64]:
    """Return the best of the first n values in the order in which they came, for every n (N,)."""
    running = np.maximum if direction == "maximize" else np.minimum
    best: npt.NDArray[np.float64] = running.accumulate(np.asarray(values, dtype=float))
    return best
