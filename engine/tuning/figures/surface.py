"""A smooth surface through the noisy values of a search's trials."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

MOST_POINTS = 200  # fitting is cubic in them
FEWEST_POINTS = 5


@dataclass(frozen=True)
class Surface:
    """Values (G, G) over the unit square, indexed [y, x], to be read inside the hull of the trials.

    Attributes:
        ticks: (G,) from 0 to 1, along both axes.
        values: (G, G).
        inside: (G, G), whether a node is inside the hull.
        hull: (H, 2), the corners of the hull in order.
        noise: standard deviation of one trial's value about the surface.
    """

    ticks: Array
    values: Array
    inside: npt.NDArray[np.bool_]
    hull: Array
    noise: float


def surface(
    points: Array, values: Array, *, noise: float | None = None, grid: int = 80
) -> Surface | None:
    """Fit a Gaussian process to trials, or return None where they span no area.

    A trial is one seed, so that a surface through every value would draw the noise. The kernel is a
    Matérn one (smoothness 5/2) with a length for each axis plus white noise, fitted by maximum
    likelihood. The noise is at least ``noise``: keys that are not on the map add to it.

    Args:
        points: (N, 2) in the unit square.
        values: (N,) finite.
        noise: standard deviation over seeds, where it was measured.
        grid: G, points a side.
    """
    from scipy.spatial import ConvexHull, Delaunay, QhullError
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    if len(points) < FEWEST_POINTS:
        return None
    try:
        hull, corners = Delaunay(points), ConvexHull(points).vertices
    except QhullError:  # all on one line
        return None
    ticks = np.linspace(0, 1, grid)
    nodes = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    spread = values.std()
    if spread == 0:
        fitted, remaining = np.full(len(nodes), values[0]), 0.0
    else:
        least = min(max((noise or 0.0) / spread, 1e-3) ** 2, 1.0)
        kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern((0.5, 0.5), (0.1, 10.0), nu=2.5)
        process = GaussianProcessRegressor(
            kernel + WhiteKernel(max(least, 0.1), (least, 2.0)), n_restarts_optimizer=1,
            random_state=0,
        )  # fmt: skip
        kept = np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).astype(int)
        with warnings.catch_warnings():
            # A length or the noise at its bound: a flat direction, or exact values.
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(points[kept], (values[kept] - values.mean()) / spread)
            fitted = values.mean() + spread * process.predict(nodes)
        remaining = spread * float(np.sqrt(process.kernel_.k2.noise_level))
    inside = hull.find_simplex(nodes) >= 0
    shape = (grid, grid)
    return Surface(ticks, fitted.reshape(shape), inside.reshape(shape), points[corners], remaining)
