"""Sampling by the effective number of images."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Lt

from data.samplers._base import Sampler


class EffectiveNumber(Sampler):
    """A class by its images over their effective number (Cui et al. 2019; LDAM-DRW's code).

    Args:
        beta: Of the effective number (1 - beta^n) / (1 - beta); 0 is instance sampling with
            replacement, near 1 every class is drawn equally often.
    """

    def __init__(self, *, beta: Annotated[float, Ge(0), Lt(1)] = 0.9999) -> None:
        self.beta = beta

    def class_probabilities(self, class_counts: np.ndarray, *, progress: float) -> np.ndarray:
        """Return n_c (1 - beta) / (1 - beta^n_c), normalised (eq. 2, as LDAM-DRW re-samples)."""
        del progress
        counts = class_counts.astype(np.float64)
        present = (counts > 0).astype(np.float64)
        weights = present * _images_per_effective_image(counts, beta=self.beta)
        return weights / weights.sum()


def _images_per_effective_image(counts: np.ndarray, *, beta: float) -> np.ndarray:
    """Return n (1 - beta) / (1 - beta^n), exact where beta is close to 1."""
    if beta == 0:
        return counts
    # log1p and expm1: 1 - beta^n has no correct digit left where n (1 - beta) is tiny.
    lost = -np.expm1(np.maximum(counts, 1) * np.log1p(beta - 1))
    return counts * (1 - beta) / lost
