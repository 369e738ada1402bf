"""What every schedule is: the rate after the warm-up, as a function of progress."""

from __future__ import annotations

from typing import ClassVar


class Schedule:
    """Learning rate over the peak rate, once the warm-up is over.

    Class facts, literals in the class body:

    * ``moves``: the rate changes after the warm-up.
    * ``rising``: keys whose numbers must stand in rising order.
    * ``fractions``: keys whose numbers are fractions of training, where the rate changes.
    """

    moves: ClassVar[bool] = True
    rising: ClassVar[tuple[str, ...]] = ()
    fractions: ClassVar[tuple[str, ...]] = ()

    def factor(self, unit: int, *, units: int, begin: float) -> float:
        """Return the rate over the peak rate at ``unit``.

        Args:
            unit: optimizer step or epoch, from 0.
            units: how many training has.
            begin: the unit where the warm-up ended.
        """
        raise NotImplementedError
