"""Progressively balanced sampling."""

from __future__ import annotations

import numpy as np

from data.samplers._base import Sampler, equal_shares, natural_shares


class Progressive(Sampler):
    """From instance sampling at the beginning to class-balanced at the end (Kang et al. 2020)."""

    def class_probabilities(self, class_counts: np.ndarray, *, progress: float) -> np.ndarray:
        """Return (1 - t) n_c / N + t / C with t = ``progress`` (eq. 2)."""
        natural, balanced = natural_shares(class_counts), equal_shares(class_counts)
        weights = (1 - progress) * natural + progress * balanced
        return weights / weights.sum()
