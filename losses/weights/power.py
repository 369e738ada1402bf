"""Weights by a power of the class counts."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from ._base import Scheme


class Power(Scheme):
    """Weight n^-power of a class of n training images.

    Args:
        power: The exponent: 0 is no weighting, 1 the inverse count.

    Raises:
        ValueError: For a power that is not finite.
    """

    def __init__(self, *, power: Annotated[float, Ge(0)] = 1.0) -> None:
        if not math.isfinite(power):
            raise ValueError(f"power must be finite, not {power}")
        self.power = power

    def log_weights(self, counts: Tensor) -> Tensor:
        """Return -power log n."""
        return -self.power * counts.log()
