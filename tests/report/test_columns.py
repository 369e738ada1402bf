"""Columns at once: to the bit what one row after the other gives, and what its definition says."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.report.columns import Compared, directions, means_and_stds
from engine.report.statistics import mean_and_std, paired_difference

IMAGES = 500
"""Of the test set whose accuracies are multiples of 1 / 500."""

# Effects near the edge of what n differences can tell, and far beyond it.
counts = st.integers(0, 60).flatmap(
    lambda shift: st.lists(st.integers(-50 + shift, 50 + shift), min_size=1, max_size=12)
)


@functools.cache
def resamples(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of n differences each resample holds, a row a resample, and their weights."""
    if n > 8:
        drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=10_000)
        return np.array([np.repeat(np.arange(n), row) for row in drawn]), np.ones(10_000)
    rows = list(itertools.combinations_with_replacement(range(n), n))
    ways = [
        math.factorial(n) // math.prod(math.factorial(row.count(k)) for k in set(row))
        for row in rows
    ]
    return np.array(rows), np.array(ways, dtype=float)


def by_definition(x: np.ndarray) -> tuple[float, float]:
    """The wider of Student's t and the studentized bootstrap at either end, each from its text."""
    n, mean, error = len(x), x.mean(), x.std(ddof=1) / math.sqrt(len(x))
    which, weights = resamples(n)
    drawn = x[which]
    errors = np.maximum(drawn.std(axis=1, ddof=1) / math.sqrt(n), 0.1 * error)
    t = (drawn.mean(axis=1) - mean) / errors
    upper = np.quantile(t, 0.975, weights=weights, method="inverted_cdf")
    lower = -np.quantile(-t, 0.975, weights=weights, method="inverted_cdf")
    student = stats.t.interval(0.95, n - 1, loc=mean, scale=error)
    return min(student[0], mean - upper * error), max(student[1], mean - lower * error)


def pairs(row: Sequence[int]) -> Compared:
    return Compared([count / IMAGES for count in row], [0.0] * len(row), range(len(row)))


@pytest.mark.parametrize("n", range(5, 13))
def test_an_interval_is_that_of_its_definition(n: int) -> None:
    for draw in range(5):
        x = np.random.default_rng(draw).exponential(0.01, n)
        found = paired_difference(x.tolist(), [0.0] * n)
        assert (found.low, found.high) == pytest.approx(by_definition(x), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(counts, min_size=1, max_size=8))
def test_each_row_stands_out_as_its_own_interval_says(rows: list[list[int]]) -> None:
    found = directions([pairs(row) for row in rows])
    for row, direction in zip(rows, found, strict=True):
        alone = paired_difference(*pairs(row)[:2])
        assert direction == (np.sign(alone.mean) if alone.is_distinguishable else 0)


@settings(max_examples=50, deadline=None)
@given(counts.filter(lambda row: len(row) > 4 and len(set(row)) > 1))
def test_a_row_stands_out_where_the_definition_has_no_zero_in_it(row: list[int]) -> None:
    low, high = by_definition(np.array(row) / IMAGES)
    assume(min(abs(low), abs(high)) > 1e-12)
    assert directions([pairs(row)]) == [int(low > 0) - int(high < 0)]


def test_pairs_of_one_subset_count_once() -> None:
    apart = Compared([0.5, 0.6, 0.7, 0.8, 0.9, 0.6], [0.1] * 6, range(6))
    assert directions([apart]) == [1]
    assert directions([apart._replace(clusters=[0, 0, 0, 1, 2, 3])]) == [0]  # of four subsets


def test_the_smaller_of_two_methods_is_named_as_such() -> None:
    low, high = [0.1, 0.2, 0.1, 0.2, 0.1], [0.8, 0.9, 0.8, 0.9, 0.85]
    assert directions([Compared(low, high), Compared(high, low), Compared(low, low)]) == [-1, 1, 0]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (Compared([1.0], [1.0, 2.0]), "1 values are paired with 2"),
        (Compared([], []), "ours: there is no value"),
        (Compared([float("nan")], [1.0]), "ours: a value is not finite"),
        (Compared([1.0], [float("inf")]), "baseline: a value is not finite"),
        (Compared([1.0], [1.0], [1, 2]), "1 pairs have 2 clusters"),
    ],
)
def test_what_cannot_be_compared_is_an_error(row: Compared, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        directions([pairs([1, 2, 3]), row])


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12), max_size=8))
def test_means_and_deviations_are_those_of_each_row(rows: list[list[float]]) -> None:
    found = means_and_stds(rows)
    assert found == [mean_and_std(row) for row in rows]
    for row, (mean, std, n) in zip(rows, found, strict=True):
        assert (mean, n) == (pytest.approx(statistics.fmean(row), abs=1e-9), len(row))
        expected = statistics.stdev(row) if n > 1 else None
        assert std == pytest.approx(expected, abs=1e-9) if n > 1 else std is None


@pytest.mark.parametrize(("row", "says"), [([], "no value"), ([float("inf")], "not finite")])
def test_a_row_without_a_mean_is_an_error(row: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        means_and_stds([[1.0], row])
