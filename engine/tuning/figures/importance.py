"""How much each key mattered, with an honest width: PED-ANOVA over resampled trials."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.tuning.study.trials import Objective, complete

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

FEWEST_TRIALS = 10
TOP_TRIALS = 5  # what PED-ANOVA's documentation asks for, at least, among the best
RESAMPLES = 50


class Importance(NamedTuple):
    """Share of one key in the importance of all, and 10 % and 90 % quantiles over resamples."""

    value: float
    low: float
    high: float


def importances(
    trials: Sequence[FrozenTrial], objective: Objective, *, index: int = 0
) -> dict[str, Importance] | None:
    """Return the importance of each key for being among the best trials, the largest first.

    PED-ANOVA (Watanabe et al. 2023) compares where the best trials lie with where all do. The
    interval is a bootstrap over trials: with a few dozen of them the order of keys is often luck.

    Args:
        trials: of a study.
        objective: what "best" means, for value number ``index``.
        index: which of the trials' values.

    Returns:
        None for fewer than `FEWEST_TRIALS` complete trials.
    """
    done = complete(trials)
    if len(done) < FEWEST_TRIALS:
        return None
    done = _sharing_distributions(done)
    study_of = _studies(objective)
    value = _shares(done, study_of, index=index)
    if value is None:
        return None
    generator = np.random.default_rng(0)
    resampled = [
        shares
        for rows in generator.integers(len(done), size=(RESAMPLES, len(done)))
        if (shares := _shares([done[row] for row in rows], study_of, index=index)) is not None
    ]
    ends = {
        key: np.quantile([shares.get(key, 0.0) for shares in resampled or [value]], [0.1, 0.9])
        for key in value
    }
    ranked = sorted(value, key=lambda key: -value[key])
    # A share may lie outside its own resamples' quantiles; a bar must not leave its interval.
    return {
        key: Importance(
            value[key], min(float(ends[key][0]), value[key]), max(float(ends[key][1]), value[key])
        )
        for key in ranked
    }


def _sharing_distributions(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return trials of which those with equal distributions have the same, each with a known hash.

    PED-ANOVA looks up every trial's distribution of every key. Each trial of a storage has its own,
    which is put into words to be hashed: of thousands of trials half the time went there.
    """
    shared: dict[BaseDistribution, BaseDistribution] = {}
    found = []
    for trial in trials:
        ours = copy.copy(trial)
        ours.distributions = {
            key: shared.get(known) or shared.setdefault(known, _hashed_once(known))
            for key, known in trial.distributions.items()
        }
        found.append(ours)
    return found


def _hashed_once(distribution: BaseDistribution) -> BaseDistribution:
    """Return an equal distribution that does not find its hash anew each time."""
    kind, known = type(distribution), hash(distribution)
    made = copy.copy(distribution)
    hashed: Any = type(kind.__name__, (kind,), {"__hash__": lambda _: known})
    made.__class__ = hashed
    return made


def _studies(objective: Objective) -> Callable[[Sequence[FrozenTrial]], Study]:
    """Return a function that gives complete trials a study, until its next call.

    A trial that is added to a study is checked and copied: 50 resamples of some thousand trials
    would spend nearly all their time on that.
    """
    import optuna

    class Given(optuna.Study):
        given: Sequence[FrozenTrial] = ()

        def get_trials(self, *_: object, **__: object) -> list[FrozenTrial]:
            return list(self.given)

    storage = optuna.storages.InMemoryStorage()
    name = optuna.create_study(storage=storage, direction=objective.direction).study_name
    study = Given(name, storage)

    def study_of(trials: Sequence[FrozenTrial]) -> Study:
        study.given = trials
        return study

    return study_of


def _shares(
    trials: Sequence[FrozenTrial],
    study_of: Callable[[Sequence[FrozenTrial]], Study],
    *,
    index: int,
) -> dict[str, float] | None:
    """Return importances that sum to 1, or None where all are 0.

    Args:
        trials: complete ones, perhaps several times the same.
        study_of: of `_studies`.
        index: which of the trials' values.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import FrozenTrial

    rescored = [
        FrozenTrial(
            number=number,
            trial_id=number,
            state=trial.state,
            value=trial.values[index],
            datetime_start=None,
            datetime_complete=None,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )
        for number, trial in enumerate(trials)
    ]
    best = min(max(0.1, TOP_TRIALS / len(trials)), 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on its experimental state, and on ties
        found = get_param_importances(
            study_of(rescored),
            evaluator=PedAnovaImportanceEvaluator(target_quantile=best),
            normalize=False,
        )
    total = sum(found.values())
    return {key: value / total for key, value in found.items()} if total > 0 else None
