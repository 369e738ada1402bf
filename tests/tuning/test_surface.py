"""The surface of a map: through the noise, inside the trials, or none at all."""

import numpy as np
import pytest

from engine.tuning.figures.surface import FEWEST_POINTS, surface


def truth(points: np.ndarray) -> np.ndarray:
    return 0.7 - 0.3 * (points[..., 0] - 0.4) ** 2 - 0.5 * (points[..., 1] - 0.6) ** 2


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(60, 2))


def test_the_surface_is_nearer_to_the_truth_than_the_trials_are(points: np.ndarray) -> None:
    noise = np.random.default_rng(1).normal(0, 0.02, size=60)
    found = surface(points, truth(points) + noise, noise=0.02)
    assert found is not None
    nodes = np.stack(np.meshgrid(found.ticks, found.ticks), axis=-1)
    error = (found.values - truth(nodes))[found.inside]
    assert np.sqrt((error**2).mean()) < 0.01
    assert found.noise == pytest.approx(0.02, rel=0.4)


def test_without_noise_the_surface_goes_through_the_trials(points: np.ndarray) -> None:
    found = surface(points, truth(points))
    assert found is not None
    nodes = np.stack(np.meshgrid(found.ticks, found.ticks), axis=-1)
    assert np.abs((found.values - truth(nodes))[found.inside]).max() < 0.005


def test_only_nodes_inside_the_hull_of_the_trials_are_to_be_read() -> None:
    corners = np.array([[0.2, 0.2], [0.8, 0.2], [0.8, 0.8], [0.2, 0.8], [0.5, 0.5]])
    found = surface(corners, truth(corners))
    assert found is not None
    across, up = np.meshgrid(found.ticks, found.ticks)
    expected = (0.2 <= across) & (across <= 0.8) & (0.2 <= up) & (up <= 0.8)
    np.testing.assert_array_equal(found.inside, expected)
    assert {tuple(corner) for corner in found.hull.tolist()} == {
        (0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8),
    }  # fmt: skip


def test_equal_values_make_a_flat_surface(points: np.ndarray) -> None:
    found = surface(points, np.full(60, 0.5), noise=0.1)
    assert found is not None
    assert (found.values == 0.5).all()
    assert found.noise == 0


def test_the_same_trials_give_the_same_surface(points: np.ndarray) -> None:
    first, second = (surface(points, truth(points), noise=0.01) for _ in range(2))
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.values, second.values)


@pytest.mark.parametrize("kind", ["few", "on a line", "in one place"])
def test_trials_that_span_no_area_have_no_surface(kind: str) -> None:
    line = np.linspace(0, 1, 20)
    found = {
        "few": np.random.default_rng(0).uniform(size=(FEWEST_POINTS - 1, 2)),
        "on a line": np.stack([line, 0.5 * line], axis=1),
        "in one place": np.full((20, 2), 0.5),
    }[kind]
    assert surface(found, truth(found)) is None


def test_a_long_search_is_fitted_on_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.tuning.figures.surface.MOST_POINTS", 60)
    points = np.random.default_rng(0).uniform(size=(2000, 2))
    found = surface(points, truth(points), noise=0.01, grid=10)
    assert found is not None
    nodes = np.stack(np.meshgrid(found.ticks, found.ticks), axis=-1)
    assert np.abs((found.values - truth(nodes))[found.inside]).max() < 0.01
