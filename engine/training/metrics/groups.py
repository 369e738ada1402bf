"""Classes with many, medium and few training images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KEYS = "(evaluate.many_above, evaluate.few_below)"


@dataclass(frozen=True)
class Limits:
    """How many training images are many and few; by default those of Liu et al. (2019).

    "Large-Scale Long-Tailed Recognition in an Open World", section 4.

    Attributes:
        many_above: A class with more has many.
        few_below: A class with fewer has few; at most ``many_above + 1``.
    """

    many_above: int = 100
    few_below: int = 20

    @property
    def words(self) -> dict[str, str]:
        """What each group means, and a class that was not trained.

        >>> Limits().words["medium"], Limits(many_above=9, few_below=10).words["medium"]
        ('20 to 100', 'none')
        """
        is_between = self.few_below <= self.many_above
        medium = f"{self.few_below} to {self.many_above}" if is_between else "none"
        return {
            "many": f"> {self.many_above}",
            "medium": medium,
            "few": f"< {self.few_below}",
            "untrained": "0",
        }

    @property
    def text(self) -> str:
        """The meaning of the three groups, on one line."""
        return ", ".join(f"{group} {self.words[group]}" for group in ("many", "medium", "few"))

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence that the numbers need beside them, unless the limits are the usual ones."""
        if self == USUAL:
            return ()
        return (f"groups by training images: {self.text} {KEYS}",)


USUAL = Limits()


def few_shot_groups(
    class_counts: npt.NDArray[np.integer], limits: Limits = USUAL
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return masks (C,) of many-, medium- and few-shot classes.

    The groups are disjoint; a class without training images is in none.

    >>> {name: mask.tolist() for name, mask in few_shot_groups(np.array([101, 100, 19])).items()}
    {'many': [True, False, False], 'medium': [False, True, False], 'few': [False, False, True]}
    """
    many, few = class_counts > limits.many_above, class_counts < limits.few_below
    return {"many": many, "medium": ~(many | few), "few": few & (class_counts > 0)}
