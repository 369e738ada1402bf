"""What the sections of an analysis share: the groups of classes, and undefined numbers."""

from __future__ import annotations

import numpy as np

from engine.analysis.blocks import Doubles, Integers, Mask
from engine.training.metrics.groups import Limits, few_shot_groups

REFUSED = "needs a validation split, such as data.validation.per_class=20: test chooses nothing"
GROUPS = ("many", "medium", "few")
LINES = ("balanced", *GROUPS)


def masks(class_counts: Integers, limits: Limits) -> dict[str, Mask]:
    """Return masks (C,) of all classes, as ``balanced``, and of those with many, medium and few."""
    every = np.ones(len(class_counts), dtype=bool)
    return {"balanced": every, **few_shot_groups(class_counts, limits)}


def defined(values: Doubles) -> list[float | None]:
    """Return numbers as JSON has them, None for NaN."""
    return [None if np.isnan(value) else float(value) for value in values]
