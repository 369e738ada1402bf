"""Weights by the inverse square root of the class counts."""

from __future__ import annotations

from torch import Tensor

from ._base import Scheme


class InverseSqrt(Scheme):
    """Weight 1/sqrt(n) of a class of n training images."""

    def log_weights(self, counts: Tensor) -> Tensor:
        """Return -log(n) / 2."""
        return -0.5 * counts.log()
