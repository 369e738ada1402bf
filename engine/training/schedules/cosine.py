"""The cosine schedule."""

from __future__ import annotations

import math

from engine.training.schedules._base import Schedule


class Cosine(Schedule):
    """Half a cosine wave from the peak rate to 0 at the end (Loshchilov and Hutter 2017)."""

    def factor(self, unit: int, *, units: int, begin: float) -> float:
        """Return (1 + cos(pi t)) / 2, t from 0 at the end of the warm-up to 1."""
        # The unit in which the warm-up ends begins before its end.
        return 0.5 * (1 + math.cos(math.pi * max(unit - begin, 0.0) / (units - begin)))
