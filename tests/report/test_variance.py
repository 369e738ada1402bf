"""Variance taken apart: against nested least-squares fits, which know nothing of cell means."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from engine.report.variance import Source, chance_of, decompose, pooled

SHAPE = (3, 2, 4, 3)
FACTORS = ("recipe", "loss", "subset")
VALUES = np.random.default_rng(5).normal(size=SHAPE) + np.arange(3).reshape(3, 1, 1, 1)


def columns(axes: tuple[int, ...]) -> np.ndarray:
    """Indicator columns of the cells of some factors, a row a run."""
    places = list(np.ndindex(*SHAPE))
    levels = sorted({tuple(place[axis] for axis in axes) for place in places})
    return np.array(
        [[float(tuple(p[a] for a in axes) == level) for level in levels] for p in places]
    )


def residual(terms: list[tuple[int, ...]]) -> float:
    """Sum of squares that a linear model of these terms leaves."""
    design = np.hstack([columns(term) for term in [(), *terms]])
    fitted = design @ np.linalg.lstsq(design, VALUES.ravel(), rcond=None)[0]
    return float(((VALUES.ravel() - fitted) ** 2).sum())


def test_each_sum_of_squares_is_what_its_term_adds_to_a_least_squares_fit() -> None:
    terms = [c for n in (1, 2, 3) for c in itertools.combinations(range(3), n)]
    expected = {
        tuple(FACTORS[axis] for axis in term): residual(terms[:i]) - residual(terms[: i + 1])
        for i, term in enumerate(terms)
    }
    expected[()] = residual(terms)
    found = {source.factors: source.squares for source in decompose(VALUES, FACTORS)}
    assert found == pytest.approx(expected)


def test_squares_and_degrees_add_up_to_those_of_all_numbers() -> None:
    found = decompose(VALUES, FACTORS)
    whole = pooled(found, ("all",))
    assert whole.degrees == VALUES.size - 1
    assert whole.squares == pytest.approx(((VALUES - VALUES.mean()) ** 2).sum())


def test_what_is_not_there_has_no_squares() -> None:
    recipe = np.array([0.0, 1.0, 5.0]).reshape(3, 1, 1)
    found = {s.factors: s.squares for s in decompose(np.broadcast_to(recipe, (3, 2, 2)), "rl")}
    assert found == pytest.approx({("r",): 56.0, ("l",): 0, ("r", "l"): 0, (): 0}, abs=1e-12)


def test_one_run_a_cell_leaves_no_source_within_cells() -> None:
    assert () not in {source.factors for source in decompose(VALUES[..., :1], FACTORS)}


def test_p_is_that_of_the_f_distribution_on_2_and_2_degrees() -> None:
    """Its survival function there is 1 / (1 + F)."""
    p = chance_of(Source(("recipe",), 2, 12.0), Source((), 2, 4.0))
    assert p == pytest.approx(1 / (1 + 3))
    assert chance_of(Source(("recipe",), 2, 12.0), Source((), 2, 0.0)) is None


@pytest.mark.parametrize("broken", [VALUES[0], np.full(SHAPE, np.nan), np.zeros((0, 2, 4, 3))])
def test_numbers_that_are_no_balanced_experiment_are_refused(broken: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"factors need|not finite"):
        decompose(broken, FACTORS)
