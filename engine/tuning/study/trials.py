"""How the trials of a study have ended, and what they found."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.tuning.search.schema import Direction

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

Outcome = Literal["complete", "pruned", "non-finite", "out of memory"]
RUN = "run"  # user attribute of a trial: its run folder below trials/, of its first seed
OUTCOME = "outcome"  # user attribute of a trial that ended without a value
NON_FINITE_IN_A_ROW = 10


class Objective(NamedTuple):
    """One thing a search looks at: a validation metric and which way is better."""

    metric: str
    direction: Direction

    @property
    def sign(self) -> float:
        """1 where more is better, else -1."""
        return 1.0 if self.direction == "maximize" else -1.0


def objectives(study: Study, metrics: Sequence[str]) -> tuple[Objective, ...]:
    """Return the study's objectives; ``metrics`` name them in its order."""
    assert len(metrics) == len(study.directions)
    return tuple(
        Objective(metric, "minimize" if direction.name == "MINIMIZE" else "maximize")
        for metric, direction in zip(metrics, study.directions, strict=True)
    )


# --- how they ended ------------------------------------------------------------------------------


def outcome_of(trial: FrozenTrial) -> Outcome | None:
    """Return how a trial ended; None while it runs or waits, and of one that was killed.

    A killed trial is run again under another number, which is the one that counts.
    """
    if trial.state.name == "COMPLETE":
        return "complete"
    if trial.state.name == "PRUNED":
        outcome: Outcome = trial.user_attrs.get(OUTCOME, "pruned")
        return outcome
    return None


def ended_trials(study: Study) -> list[FrozenTrial]:
    """Return the trials that count, in the order of their numbers: all that have an outcome."""
    return [trial for trial in study.get_trials(deepcopy=False) if outcome_of(trial) is not None]


def all_non_finite(ended: Sequence[FrozenTrial]) -> bool:
    """Return whether the last ten trials that ended all diverged: the next would too."""
    by_time = sorted(ended, key=lambda trial: trial.datetime_complete.timestamp())  # type: ignore[union-attr]
    last = by_time[-NON_FINITE_IN_A_ROW:]
    return len(last) == NON_FINITE_IN_A_ROW and {outcome_of(t) for t in last} == {"non-finite"}


def complete(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that trained to their end and found finite values, by number."""
    return _ended(trials, "complete")


def pruned(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that a pruner stopped and that had reported a finite value, by number."""
    return _ended(trials, "pruned")


def lost(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that ended without a finite value: they diverged, or memory ran out."""
    trials = list(trials)
    known = {trial.number for trial in (*complete(trials), *pruned(trials))}
    found = [t for t in trials if outcome_of(t) is not None and t.number not in known]
    return sorted(found, key=lambda trial: trial.number)


def _ended(trials: Iterable[FrozenTrial], outcome: str) -> list[FrozenTrial]:
    # Optuna gives a diverged trial the last value it had reported; its outcome tells.
    found = [trial for trial in trials if outcome_of(trial) == outcome and _is_finite(trial)]
    return sorted(found, key=lambda trial: trial.number)


def _is_finite(trial: FrozenTrial) -> bool:
    return bool(trial.values) and all(math.isfinite(value) for value in trial.values)


# --- what they found -----------------------------------------------------------------------------


def keys_of(trials: Iterable[FrozenTrial]) -> list[str]:
    """Return the keys that any of the trials set, in order of first appearance."""
    return list(dict.fromkeys(key for trial in trials for key in trial.params))


def identity_of(params: Mapping[str, Any]) -> frozenset[tuple[str, type, Any]]:
    """Return what tells one parameter set from another, up to the rounding of sums of steps."""
    return frozenset(
        (key, type(value), float(f"{value:.12g}") if isinstance(value, float) else value)
        for key, value in params.items()
    )


def worst_values(
    trials: Iterable[FrozenTrial], objectives: Sequence[Objective]
) -> list[float] | None:
    """Return the worst complete value of each objective; None where no trial is complete.

    It is what a trial counts with that did not end whole, where every trial must count.
    """
    if not (done := complete(trials)):
        return None
    columns = zip(*(trial.values for trial in done), strict=True)
    return [
        min(column) if objective.sign > 0 else max(column)
        for column, objective in zip(columns, objectives, strict=True)
    ]


def best_first(
    trials: Iterable[FrozenTrial], objective: Objective, *, index: int = 0
) -> list[FrozenTrial]:
    """Return complete trials, the best by value number ``index`` first; the earlier wins a tie."""
    return sorted(complete(trials), key=lambda t: (-objective.sign * t.values[index], t.number))


def ranked(trials: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> list[FrozenTrial]:
    """Return complete trials, the best first.

    With several objectives the front's best by each of them in turn, then by the first alone.
    """
    done = complete(trials)
    if len(objectives) == 1:
        return best_first(done, objectives[0])
    on_front = set(front(done, objectives))
    inside = [trial for trial in done if trial.number in on_front]
    by_each = [best_first(inside, objective, index=i) for i, objective in enumerate(objectives)]
    in_turn = [trial for place in zip(*by_each, strict=True) for trial in place]
    found = {t.number: t for t in [*in_turn, *best_first(done, objectives[0])]}
    return list(found.values())


def front(trials: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> list[int]:
    """Return the numbers of the complete trials that no other beats in every objective at once."""
    done = complete(trials)
    signs = np.array([objective.sign for objective in objectives])
    signed = signs * np.array([trial.values for trial in done]).reshape(-1, len(signs))

    def is_beaten(own: npt.NDArray[np.float64]) -> bool:
        return bool(((signed >= own).all(axis=1) & (signed > own).any(axis=1)).any())

    return [trial.number for trial, own in zip(done, signed, strict=True) if not is_beaten(own)]
