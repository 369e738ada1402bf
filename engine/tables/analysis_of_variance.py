"""What the variance of a balanced experiment comes from: a sum of squares for each cause."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Source(NamedTuple):
    """One cause of variance.

    Attributes:
        factors: whose effect it is; of several, what they do together beyond each alone; of none,
            what runs that share every factor differ by.
        degrees: degrees of freedom.
        squares: sum of squares; those of all sources add up to that of all numbers.
    """

    factors: tuple[str, ...]
    degrees: int
    squares: float


def decompose(values: np.ndarray, factors: Sequence[str]) -> list[Source]:
    """Return the analysis of variance of a balanced factorial experiment.

    Each effect is what the means of its cells add to those of all smaller effects (Fisher 1925,
    "Statistical Methods for Research Workers"; for equal numbers in all cells every type of sums
    of squares is the same).

    Args:
        values: (levels of the first factor, of the second, ..., runs of each cell).
        factors: names of all axes but the last.

    Returns:
        Single factors first, then pairs and so on; last what runs of one cell differ by, where
        there are several. Effects without a degree of freedom are left out.

    Raises:
        ValueError: a number is not finite, or the axes do not fit the names.

    >>> plain = decompose(np.array([[[1.0, 3.0], [1.0, 3.0]], [[5.0, 7.0], [5.0, 7.0]]]), "ab")
    >>> [(source.factors, source.squares) for source in plain]
    [(('a',), 32.0), (('b',), 0.0), (('a', 'b'), 0.0), ((), 8.0)]
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != len(factors) + 1 or values.size == 0:
        raise ValueError(f"{len(factors)} factors need {len(factors) + 1} axes, not {values.ndim}")
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite: the experiment is not balanced without it")
    axes = range(len(factors))
    effects: dict[tuple[int, ...], np.ndarray] = {(): np.asarray(values.mean())}
    found = []
    for size in range(1, len(factors) + 1):
        for chosen in itertools.combinations(axes, size):
            others = tuple(axis for axis in range(values.ndim) if axis not in chosen)
            effect = values.mean(axis=others, keepdims=True)
            for smaller in effects:
                if set(smaller) < set(chosen):
                    effect = effect - effects[smaller]
            effects[chosen] = effect
            degrees = math.prod(values.shape[axis] - 1 for axis in chosen)
            if degrees:
                squares = float((effect**2).sum()) * values.size / effect.size
                found.append(Source(tuple(factors[axis] for axis in chosen), degrees, squares))
    within = values - values.mean(axis=-1, keepdims=True)
    if degrees := values.size - values.size // values.shape[-1]:
        found.append(Source((), degrees, float((within**2).sum())))
    return found


def pooled(sources: Sequence[Source], factors: Sequence[str]) -> Source:
    """Return several sources as one, under a new name."""
    return Source(
        tuple(factors),
        sum(source.degrees for source in sources),
        math.fsum(source.squares for source in sources),
    )


def chance_in_blocks(
    values: np.ndarray, effect: Sequence[str], *, factors: Sequence[str], block: str
) -> float | None:
    """Return p of an F test of an effect against how much it differs between blocks.

    A block, such as a training subset, has a number for every cell. Levels that vary more than
    others from block to block make the plain test reject too often; its degrees of freedom are
    therefore multiplied by how equal the variances of the effect's contrasts are (Greenhouse and
    Geisser 1959, "On methods in the analysis of profile data"). A single contrast needs no such
    correction: its test is the paired t test.

    Args:
        values: (levels of the first factor, of the second, ..., runs of each cell).
        effect: factors of the effect, without ``block``.
        factors: names of all axes but the last.
        block: the factor whose levels are drawn independently.

    Returns:
        None for a single block, and where the effect does not differ between blocks.
    """
    kept = [factors.index(name) for name in (block, *effect)]
    scores = np.moveaxis(values, kept, range(len(kept))).mean(
        axis=tuple(range(len(kept), values.ndim))
    )
    for axis in range(1, scores.ndim):
        scores = scores - scores.mean(axis=axis, keepdims=True)
    degrees = math.prod(size - 1 for size in scores.shape[1:])
    scores = scores.reshape(len(scores), -1)
    num_blocks, mean = len(scores), scores.mean(axis=0)
    if num_blocks < 2:
        return None
    covariance = (scores - mean).T @ (scores - mean) / (num_blocks - 1)
    spread = float(np.trace(covariance))
    # Rounding alone makes up this much of numbers that do not differ.
    if spread <= 1e-24 * float((values**2).mean()):
        return None
    equality = spread**2 / (degrees * float((covariance**2).sum()))
    # Not scipy.stats, whose import takes as long as everything else here.
    from scipy.special import fdtrc

    ratio = num_blocks * float(mean @ mean) / spread
    return float(fdtrc(degrees * equality, degrees * equality * (num_blocks - 1), ratio))
