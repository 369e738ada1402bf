"""Weights by the inverse of the class counts."""

from __future__ import annotations

from torch import Tensor

from ._base import Scheme


class Inverse(Scheme):
    """Weight 1/n of a class of n training images."""

    def log_weights(self, counts: Tensor) -> Tensor:
        """Return -log n."""
        return -1.0 * counts.log()
