"""Variance taken apart: against nested least-squares fits, which know nothing of cell means."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import linalg, stats

from engine.tables.analysis_of_variance import chance_in_blocks, decompose, pooled

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


def test_p_of_two_levels_is_that_of_the_paired_t_test() -> None:
    p = chance_in_blocks(VALUES, ["loss"], factors=FACTORS, block="subset")
    means = VALUES.mean(axis=(0, 3))  # (loss, subset)
    assert p == pytest.approx(stats.ttest_rel(means[0], means[1]).pvalue)


def test_p_of_an_interaction_is_that_of_its_orthonormal_contrasts() -> None:
    """Greenhouse and Geisser's factor from the eigenvalues of the contrasts' covariance."""
    p = chance_in_blocks(VALUES, ["recipe", "loss"], factors=FACTORS, block="subset")
    contrasts = np.kron(linalg.helmert(3), linalg.helmert(2))
    scores = VALUES.mean(axis=3).transpose(2, 0, 1).reshape(4, 6) @ contrasts.T  # (subset, 2)
    eigenvalues = np.linalg.eigvalsh(np.cov(scores.T))
    factor = eigenvalues.sum() ** 2 / (2 * (eigenvalues**2).sum())
    squares = {source.factors: source for source in decompose(VALUES, FACTORS)}
    effect, error = squares["recipe", "loss"], squares["recipe", "loss", "subset"]
    ratio = (effect.squares / effect.degrees) / (error.squares / error.degrees)
    assert p == pytest.approx(stats.f.sf(ratio, 2 * factor, 6 * factor))


def test_levels_of_unequal_spread_are_not_found_to_differ_too_often() -> None:
    """The uncorrected test rejects a true null hypothesis in more than one of ten such tables."""
    spreads = np.array([1.0, 1.0, 1.0, 1.0, 8.0]).reshape(5, 1, 1)
    draws = np.random.default_rng(0).normal(size=(1000, 5, 5, 1)) * spreads
    found = [chance_in_blocks(draw, "r", factors="rs", block="s") for draw in draws]
    assert np.mean([p is not None and p < 0.05 for p in found]) < 0.08


def test_an_effect_that_is_the_same_in_all_blocks_has_no_p() -> None:
    same = np.broadcast_to(np.array([0.1, 0.2, 0.7]).reshape(3, 1, 1), (3, 6, 1))
    assert chance_in_blocks(same, "r", factors="rs", block="s") is None
    assert chance_in_blocks(same[:, :1], "r", factors="rs", block="s") is None


@pytest.mark.parametrize("broken", [VALUES[0], np.full(SHAPE, np.nan), np.zeros((0, 2, 4, 3))])
def test_numbers_that_are_no_balanced_experiment_are_refused(broken: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"factors need|not finite"):
        decompose(broken, FACTORS)
