"""A learning rate that falls in steps."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Gt, Le, Lt

from engine.training.schedules._base import Schedule


class Steps(Schedule):
    """The rate falls by the same factor at each of several fractions of training.

    Args:
        steps: Fractions of training where the rate falls, in rising order.
        decay: Factor at each of the steps.
    """

    rising: ClassVar[tuple[str, ...]] = ("steps",)
    fractions: ClassVar[tuple[str, ...]] = ("steps",)

    def __init__(
        self,
        *,
        steps: tuple[Annotated[float, Gt(0), Lt(1)], ...] = (0.8, 0.9),
        decay: Annotated[float, Gt(0), Le(1)] = 0.1,
    ) -> None:
        self.steps = steps
        self.decay = decay

    def factor(self, unit: int, *, units: int, begin: float) -> float:
        """Return ``decay`` to the number of steps that have begun."""
        del begin
        return self.decay ** sum(unit >= step * units - 1e-9 for step in self.steps)
