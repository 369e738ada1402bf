"""One pass of predictions with what metrics are made of, each computed when first asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from engine.training.metrics.groups import USUAL, Limits, few_shot_groups
from engine.training.metrics.per_class import Outcomes, count_outcomes
from engine.training.metrics.ranking import MAX_RANKED, RankingScores, ranking_scores
from engine.training.metrics.rows import InBlocks, RowScores


@dataclass(frozen=True, eq=False)
class Scored:
    """Predictions of one split, as every function of the catalogue takes them.

    Attributes:
        source: (N, C) probabilities, rows that sum to one, which need not be in memory.
        rows: (N,) arrays of what most metrics need of them.
        targets: (N,) integers in [0, C).
        class_counts: (C,) training images of each class; they define the groups.
        old_classes: Labels that an earlier run learnt.
        threshold: In a task of two classes, the least probability of class 1 that means positive.
        limits: Of the groups.
    """

    source: InBlocks
    rows: RowScores
    targets: npt.NDArray[np.integer]
    class_counts: npt.NDArray[np.integer]
    old_classes: tuple[int, ...] = ()
    threshold: float | None = None
    limits: Limits = USUAL

    @property
    def num_classes(self) -> int:
        """C, those without test images included."""
        return self.source.shape[1]

    @cached_property
    def probabilities(self) -> npt.NDArray[np.floating]:
        """(N, C) floats: all of them, 8 bytes each; ``rows`` has what most metrics need."""
        return self.source.whole()

    @property
    def predictions(self) -> npt.NDArray[np.integer]:
        """(N,) arg max of the probabilities, the lowest index on a tie."""
        return self.rows.predictions

    @cached_property
    def outcomes(self) -> Outcomes:
        """What was predicted for what."""
        return count_outcomes(self.targets, self.predictions, num_classes=self.num_classes)

    @property
    def recall(self) -> npt.NDArray[np.float64]:
        """(C,) recall of each class, NaN for one without test images."""
        return self.outcomes.per_class.recall

    @cached_property
    def groups(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Masks (C,): many, medium, few; old and new where both are among the classes tested."""
        old = np.isin(np.arange(self.num_classes), np.array(self.old_classes, dtype=np.int64))
        tested = self.outcomes.per_class.support > 0
        ages = {"old": old & tested, "new": ~old & tested}
        both = ages if all(mask.any() for mask in ages.values()) else {}
        return few_shot_groups(self.class_counts, self.limits) | both

    @cached_property
    def ranking(self) -> RankingScores:
        """AUROC and average precision: one sort of each class serves both."""
        if math.prod(self.source.shape) > MAX_RANKED:
            return RankingScores(None, None)
        return ranking_scores(self.probabilities, self.targets)

    def has(self, needed: str | None) -> bool:
        """Return whether the task has what a metric ``needs``; ``ranking`` is up to the caller."""
        return {
            "six_classes": self.num_classes > 5,
            "two_classes": self.num_classes == 2,
            "old_classes": "old" in self.groups,
            "threshold": self.threshold is not None,
        }.get(needed or "", True)
