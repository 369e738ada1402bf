"""What the ended trials of a study found: finite values, in order, and the keys they set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from engine.tuning.search.search_file import Direction
from engine.tuning.study.study import outcome_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


class Objective(NamedTuple):
    """One thing a search looks at: a validation metric and which way is better."""

    metric: str
    direction: Direction

    @property
    def sign(self) -> float:
        """1 where more is better, else -1."""
        return 1.0 if self.direction == "maximize" else -1.0


def objectives(study: Study, metrics: Sequence[str]) -> tuple[Objective, ...]:
    """The study's objectives; ``metrics`` name them in its order."""
    assert len(metrics) == len(study.directions)
    return tuple(
        Objective(metric, "minimize" if direction.name == "MINIMIZE" else "maximize")
        for metric, direction in zip(metrics, study.directions, strict=True)
    )


def complete(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that trained to their end and found finite values, by number."""
    return _ended(trials, "complete")


def pruned(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that a pruner stopped, and that had reported a finite value, by number."""
    return _ended(trials, "pruned")


def lost(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that have ended without a finite value: they diverged, or memory ran out."""
    trials = list(trials)
    known = {trial.number for trial in (*complete(trials), *pruned(trials))}
    found = [t for t in trials if outcome_of(t) is not None and t.number not in known]
    return sorted(found, key=lambda trial: trial.number)


def keys_of(trials: Iterable[FrozenTrial]) -> list[str]:
    """The keys that any of the trials set, in order of first appearance."""
    return list(dict.fromkeys(key for trial in trials for key in trial.params))


def best_first(
    trials: Iterable[FrozenTrial], objective: Objective, *, index: int = 0
) -> list[FrozenTrial]:
    """Complete trials, the best by value number ``index`` first; the earlier wins a tie."""
    return sorted(complete(trials), key=lambda t: (-objective.sign * t.values[index], t.number))


def _ended(trials: Iterable[FrozenTrial], outcome: str) -> list[FrozenTrial]:
    # Optuna gives a diverged trial the last value it had reported; its outcome tells.
    found = [trial for trial in trials if outcome_of(trial) == outcome and _is_finite(trial)]
    return sorted(found, key=lambda trial: trial.number)


def _is_finite(trial: FrozenTrial) -> bool:
    return bool(trial.values) and all(math.isfinite(value) for value in trial.values)
