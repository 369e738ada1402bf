"""A column of a table at once: its means and spreads, and which rows stand out from the baseline.

To the last bit what :mod:`engine.report.statistics` says of one row after the other, which takes a
table of a thousand rows several times as long.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from engine.report.statistics import (
    FEWEST_FOR_A_CLAIM,
    LEVEL,
    ROUNDING,
    FloatArray,
    MeanAndStd,
    averaged,
    excludes_zero,
    finite,
    paired_one_by_one,
    student,
)


class Compared(NamedTuple):
    """What :func:`engine.report.statistics.paired_difference` takes of one row."""

    ours: Sequence[float]
    baseline: Sequence[float]
    clusters: Sequence[Hashable] | None = None


def means_and_stds(rows: Sequence[Sequence[float]]) -> list[MeanAndStd]:
    """Return mean and sample standard deviation of each row of at least one finite value.

    >>> means_and_stds([[1.0, 3.0], [2.0]])
    [MeanAndStd(mean=2.0, std=1.4142135623730951, n=2), MeanAndStd(mean=2.0, std=None, n=1)]

    Raises:
        ValueError: a row without a value, or with one that is not finite.
    """
    found: dict[int, MeanAndStd] = {}
    for which in _of_equal_length(rows):
        values = finite([rows[number] for number in which], what="values")
        n = values.shape[1]
        means = values.mean(axis=1).tolist()
        stds = values.std(axis=1, ddof=1).tolist() if n > 1 else [None] * len(means)
        for number, mean, std in zip(which, means, stds, strict=True):
            found[number] = MeanAndStd(mean, std, n)
    return [found[number] for number in range(len(rows))]


def directions(rows: Sequence[Compared]) -> list[int]:
    """Return on which side of its baseline each row distinguishably lies: -1, 1, or 0 for neither.

    It is that of :func:`engine.report.statistics.paired_difference` at its usual level, where the
    difference ``is_distinguishable``.

    >>> directions([Compared([0.8, 0.9, 0.8, 0.9, 0.8], [0.1, 0.1, 0.2, 0.2, 0.1], range(5))])
    [1]

    Raises:
        ValueError: as :func:`engine.report.statistics.paired_difference`.
    """
    found = [0] * len(rows)
    for number, mean, centred in _candidates(rows):
        if excludes_zero(mean, centred):
            found[number] = 1 if mean > 0 else -1
    return found


def may_differ(rows: Sequence[Compared]) -> list[bool]:
    """Return False for each row that is not distinguishable, as far as that is seen cheaply.

    The interval of :func:`engine.report.statistics.paired_difference` holds that of Student's t.
    Where this one has 0 in it, no resample is needed.

    >>> may_differ([Compared([0.8, 0.9, 0.7, 0.8, 0.9], [0.9, 0.8, 0.8, 0.7, 0.9], range(5))])
    [False]

    Raises:
        ValueError: as :func:`engine.report.statistics.paired_difference`.
    """
    left = {candidate.number for candidate in _candidates(rows)}
    return [number in left for number in range(len(rows))]


class _Independent(NamedTuple):
    """The independent differences (n,) of a row, and the largest number behind them."""

    number: int
    differences: FloatArray
    largest: float


class _Candidate(NamedTuple):
    """A row that Student's t tells from its baseline: its differences (n,) less their mean."""

    number: int
    mean: float
    centred: FloatArray


def _candidates(rows: Sequence[Compared]) -> Iterator[_Candidate]:
    for n, alike in _independent(rows).items():
        if n < FEWEST_FOR_A_CLAIM:
            continue
        differences = np.array([row.differences for row in alike])
        means = differences.mean(axis=1)
        # Their error, and not that of the differences, which may differ in the last bit: it is the
        # one that the interval goes by.
        centred = differences - means[:, None]
        reach = centred.std(axis=1, ddof=1) / math.sqrt(n) * student(n, LEVEL)
        varies = np.ptp(differences, axis=1) > ROUNDING * np.array([row.largest for row in alike])
        for row in np.flatnonzero(varies & (np.abs(means) > reach)).tolist():
            yield _Candidate(alike[row].number, float(means[row]), centred[row])


def _independent(rows: Sequence[Compared]) -> dict[int, list[_Independent]]:
    """Return the differences of each row, by their number n."""
    found: dict[int, list[_Independent]] = {}
    for which in _of_equal_length([row.ours for row in rows]):
        for number in which:
            paired_one_by_one(rows[number].ours, rows[number].baseline)
        ours = finite([rows[number].ours for number in which], what="ours")
        baseline = finite([rows[number].baseline for number in which], what="baseline")
        largest = np.maximum(np.abs(ours).max(axis=1), np.abs(baseline).max(axis=1))
        for number, values, size in zip(which, ours - baseline, largest, strict=True):
            own = averaged(values, rows[number].clusters)
            found.setdefault(len(own), []).append(_Independent(number, own, float(size)))
    return found


def _of_equal_length(rows: Sequence[Sequence[float]]) -> Iterator[list[int]]:
    """Yield which rows have one length, for each length there is."""
    found: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        found.setdefault(len(row), []).append(number)
    yield from found.values()
