"""One key as an axis of a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Scale:
    """One key as an axis: a range, linear or logarithmic, or a row of choices.

    Attributes:
        key: dotted.
        low: smallest value, ``high`` largest; of choices, 0 and their number - 1.
        is_log: whether the search drew it on a logarithmic scale.
        choices: in the order of the search space; empty for numbers.
    """

    key: str
    low: float
    high: float
    is_log: bool = False
    choices: tuple[str, ...] = ()

    @classmethod
    def of(cls, key: str, trials: Sequence[FrozenTrial]) -> Scale:
        """Return what the distributions of ``key`` in ``trials`` span together."""
        spaces = [trial.distributions[key] for trial in trials]
        choices = [str(c) for space in spaces for c in getattr(space, "choices", ())]
        if choices:
            found = tuple(dict.fromkeys([*choices, *(str(t.params[key]) for t in trials)]))
            return cls(key, 0.0, len(found) - 1.0, choices=found)
        numbers: list[Any] = list(spaces)
        low, high = min(s.low for s in numbers), max(s.high for s in numbers)
        is_log = all(s.log for s in numbers) and low > 0
        return cls(key, float(low), float(high), is_log=is_log)

    def place(self, value: Any) -> float:
        """Return where on the axis a value is; NaN for what is no value of this key."""
        if self.choices:
            return float(self.choices.index(str(value))) if str(value) in self.choices else np.nan
        return float(value) if isinstance(value, int | float) else np.nan

    def share(self, places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return places as shares of the range, 0 to 1."""
        low, high = self.low, self.high
        if self.is_log:
            places, low, high = np.log(places), np.log(low), np.log(high)
        return (places - low) / (high - low) if high > low else np.full_like(places, 0.5)

    def unshare(self, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the inverse of :meth:`share`."""
        if self.is_log:
            return np.asarray(self.low * (self.high / self.low) ** shares)
        return self.low + shares * (self.high - self.low)
