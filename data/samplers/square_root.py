"""Square-root sampling."""

from __future__ import annotations

import numpy as np

from data.samplers._base import Sampler


class SquareRoot(Sampler):
    """A class by the square root of its number of training images (Kang et al. 2020)."""

    def class_probabilities(self, class_counts: np.ndarray, *, progress: float) -> np.ndarray:
        """Return sqrt(n_c), normalised (eq. 1 with q = 1/2).

        >>> SquareRoot().class_probabilities(np.array([16, 0, 1]), progress=0.0).tolist()
        [0.8, 0.0, 0.2]
        """
        del progress
        weights = np.sqrt(class_counts.astype(np.float64))
        return weights / weights.sum()
