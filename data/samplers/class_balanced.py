"""Class-balanced sampling."""

from __future__ import annotations

import numpy as np

from data.samplers._base import Sampler, equal_shares


class ClassBalanced(Sampler):
    """Every class equally often (Shen et al. 2016)."""

    def class_probabilities(self, class_counts: np.ndarray, *, progress: float) -> np.ndarray:
        """Return 1 / C for the C classes with images."""
        del progress
        return equal_shares(class_counts)
