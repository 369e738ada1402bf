"""A constant learning rate."""

from __future__ import annotations

from typing import ClassVar

from engine.training.schedules._base import Schedule


class Constant(Schedule):
    """The peak rate to the end."""

    moves: ClassVar[bool] = False

    def factor(self, unit: int, *, units: int, begin: float) -> float:
        """Return 1."""
        del unit, units, begin
        return 1.0
