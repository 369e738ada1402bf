"""Drawn logits for the tests: a long-tailed classifier that is right more often in the head."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

COUNTS = np.array([400, 200, 90, 45, 21, 10, 4])


class Drawn(NamedTuple):
    """Log-probabilities (N, C) and targets (N,)."""

    logits: np.ndarray
    targets: np.ndarray


def drawn(num_images: int = 420, *, seed: int = 0, sharpness: float = 2.0) -> Drawn:
    """Noisy logits that carry the training prior; as many images of each class."""
    generator = np.random.default_rng(seed)
    targets = np.arange(num_images) % len(COUNTS)
    logits = generator.normal(size=(num_images, len(COUNTS)))
    logits[np.arange(num_images), targets] += 1.5
    logits = sharpness * (logits + 0.7 * np.log(COUNTS / COUNTS.sum()))
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return Drawn(logits, targets)


def probabilities(logits: np.ndarray) -> np.ndarray:
    found = np.exp(logits - logits.max(axis=1, keepdims=True))
    return found / found.sum(axis=1, keepdims=True)
