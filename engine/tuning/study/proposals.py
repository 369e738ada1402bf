"""The next parameter set to try: one that no trial has had, from one of Optuna's samplers.

A sampler is asked about a copy of the study in memory, and as often as it takes:

* Optuna's Gaussian process learns from complete trials alone. In the copy a trial that was pruned,
  diverged or ran out of memory is complete, with the worst value that a whole trial has found;
  otherwise the process would propose the same bad point again and again.
* TPE learns from pruned trials too, and takes the one that came furthest for the best of them. In
  the copy a trial that diverged has come nowhere.
* With Hyperband, Optuna shows a sampler the trials of one bracket only, often too few to learn
  anything. The copy has them all.
* A sampler may repeat itself; of a choice among eight values TPE tries four in eight trials.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from engine.tuning.search import Search
from engine.tuning.search.schema import Range
from engine.tuning.search.space import constants_of, parameter_sets, suggest
from engine.tuning.study.optuna_parts import make_sampler
from engine.tuning.study.trials import identity_of, objectives, outcome_of, worst_values

ATTEMPTS = 5  # proposals of the sampler before one is drawn at random
DRAWS = 20  # at random, before a repetition is let pass


class Proposer(optuna.samplers.BaseSampler):
    """Gives each trial of a study the parameter set that :meth:`propose` finds for it.

    What is proposed depends on the seed, the trial's number and the trials before it: workers, and
    a sweep that is resumed, never draw the same numbers twice, and a sweep of one worker is the
    same sweep however often it was stopped.
    """

    def __init__(self, search: Search, study: optuna.Study) -> None:
        self.search, self.study = search, study
        self._sets = parameter_sets(search) or []
        random.Random(search.file.sampler.seed).shuffle(self._sets)
        self._constants = constants_of(search)
        self._proposal: dict[str, Any] = {}

    def before_trial(self, _study: optuna.Study, trial: FrozenTrial) -> None:
        """Decide on the whole parameter set at once."""
        fixed = trial.system_attrs.get("fixed_params", {})  # what a queued trial brings along
        self._proposal = self.propose(trial.number, fixed=fixed)

    def infer_relative_search_space(self, *_: Any) -> dict[str, BaseDistribution]:
        """Return nothing: every key is asked for by itself."""
        return {}

    def sample_relative(self, *_: Any) -> dict[str, Any]:
        """Return nothing, as above."""
        return {}

    def sample_independent(
        self, _study: optuna.Study, _trial: FrozenTrial, param_name: str, _: BaseDistribution
    ) -> Any:
        """Return the proposed value of one key."""
        return self._proposal[param_name]

    def propose(self, number: int, *, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameter set of trial ``number``; only under the claim.

        Args:
            number: of the trial, which is in the study already.
            fixed: values that stand, of some keys or all.
        """
        others = [t for t in self.study.get_trials(deepcopy=False) if t.number != number]
        tried = [t for t in others if outcome_of(t) is not None or t.state == TrialState.RUNNING]
        known = {identity_of(trial.params) for trial in tried}
        found: dict[str, Any] = {}
        for found in self._drawn(number, tried, fixed=fixed):
            if identity_of(found) not in known:
                return found
        fitting = [values for values in self._sets if fixed.items() <= values.items()]
        untried = [values for values in fitting if identity_of(values) not in known]
        # Without one the queue repeats a trial, or a branch of an endless space is used up.
        return next(iter(untried or fitting), found)

    def _drawn(
        self, number: int, tried: Sequence[FrozenTrial], *, fixed: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Yield the proposals of the sampler, then, of an endless space, some at random."""
        name, seed = self.search.file.sampler.name, self.search.file.sampler.seed
        if name == "grid":
            return
        copy = copied(self.study, tried, self.search)
        draws = 0 if self._sets else DRAWS
        for attempt, sampler in enumerate([name] * ATTEMPTS + ["random"] * draws):
            words = f"{seed}/{number}" if attempt == 0 else f"{seed}/{number}/{attempt}"
            copy.sampler = make_sampler(sampler, seed=random.Random(words).getrandbits(32))
            if fixed:
                copy.enqueue_trial(dict(fixed))
            trial = copy.ask()
            values = suggest(trial, self.search.file.space, constants=self._constants)
            copy.tell(trial, state=TrialState.FAIL)
            yield {key: self._rounded(key, value) for key, value in values.items()}

    def _rounded(self, key: str, value: Any) -> Any:
        """Return 0.3 for 0.1 + 2 * 0.1, and a float where the queue holds a whole number."""
        axis = self.search.file.space[key]
        if not isinstance(axis, Range) or axis.kind == "int":
            return value
        return float(value) if axis.step is None else round(float(value), 12)


def copied(study: optuna.Study, tried: Sequence[FrozenTrial], search: Search) -> optuna.Study:
    """Return a study in memory from which the search's sampler learns what it should."""
    copy = optuna.create_study(directions=study.directions)
    sampler = search.file.sampler.name
    if sampler == "random":
        return copy
    worst = worst_values(tried, objectives(study, search.file.metrics))
    for trial in tried:
        state, values, reported = trial.state, trial.values, trial.intermediate_values
        if state == TrialState.PRUNED and sampler == "gp":
            if worst is None:
                continue
            state, values = TrialState.COMPLETE, worst
        elif outcome_of(trial) not in ("complete", "pruned"):
            values, reported = None, {}
        copy.add_trial(
            create_trial(
                state=state,
                values=values if state == TrialState.COMPLETE else None,
                params=trial.params,
                distributions=trial.distributions,
                intermediate_values=reported,
            )
        )
    return copy
