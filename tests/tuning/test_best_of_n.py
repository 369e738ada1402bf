"""Best of n: the closed form against every possible draw, one by one."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tuning.figures.best_of_n import best_of_n, best_so_far
from engine.tuning.search.schema import Direction

VALUES = [0.3, 0.9, 0.5, 0.5, 0.7]


@pytest.mark.parametrize(("direction", "best"), [("maximize", max), ("minimize", min)])
def test_the_expected_best_is_the_mean_over_all_draws(direction: Direction, best: object) -> None:
    found = best_of_n(VALUES, direction=direction)
    for n in range(1, len(VALUES) + 1):
        every = [best(draw) for draw in itertools.combinations(VALUES, n)]  # type: ignore[operator]
        assert found.mean[n - 1] == pytest.approx(np.mean(every))


@pytest.mark.parametrize(("direction", "best"), [("maximize", max), ("minimize", min)])
def test_the_band_holds_eight_of_ten_draws(direction: Direction, best: object) -> None:
    found = best_of_n(VALUES, direction=direction)
    for n in range(1, len(VALUES) + 1):
        every = np.array([best(d) for d in itertools.combinations(VALUES, n)])  # type: ignore[operator]
        assert (every < found.low[n - 1]).mean() <= 0.1 + 1e-9
        assert (every > found.high[n - 1]).mean() <= 0.1 + 1e-9
        assert {found.low[n - 1], found.high[n - 1]} <= set(every)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60))
def test_more_draws_are_never_worse_and_all_draws_find_the_best(values: list[float]) -> None:
    found = best_of_n(values, direction="maximize")
    scale = 1 + float(np.abs(values).max())
    assert (np.diff(found.mean) >= -1e-9 * scale).all()
    assert found.mean[0] == pytest.approx(np.mean(values), abs=1e-9 * scale)
    assert found.mean[-1] == pytest.approx(max(values), abs=1e-9 * scale)
    assert (found.low <= found.high).all()
    assert found.draws.tolist() == list(range(1, len(values) + 1))


def test_a_thousand_values_neither_overflow_nor_lose_the_best() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    found = best_of_n(values.tolist(), direction="maximize")
    assert np.isfinite(found.mean).all()
    assert found.mean[-1] == values.max()
    draws = np.random.default_rng(1).choice(values, size=(20_000, 10)).max(axis=1)
    assert found.mean[9] == pytest.approx(draws.mean(), abs=0.02)


def test_the_best_so_far_keeps_the_order_of_the_search() -> None:
    assert best_so_far(VALUES, direction="maximize").tolist() == [0.3, 0.9, 0.9, 0.9, 0.9]
    assert best_so_far(VALUES, direction="minimize").tolist() == [0.3, 0.3, 0.3, 0.3, 0.3]
