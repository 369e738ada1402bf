"""A worker: claims a place, asks for a trial, trains it, and again, until all places are taken.

A place is a parameter set that ends. N of them are wanted, and a killed trial and its retry are one
place. Counting and asking happen under the claim, so that N workers never ask for the last place
together; from then on the running trial itself, in the storage, is what holds the place.

::

                        under the claim           without it
    enqueue -> WAITING --ask--> RUNNING, no owner -----> RUNNING --train--> COMPLETE, or PRUNED:
                  ^                   |                     |               pruned, non-finite
                  |                   | withdrawn: claim    | its process   or out of memory
                  |                   | lost while asking,  | died, or left
                  |                   | or it is a twin     |
                  |                   v                     v
                  +-----requeue----- FAIL <-----------------+

WAITING, RUNNING, COMPLETE, PRUNED and FAIL are Optuna's states. Only COMPLETE and PRUNED count as
ended. ``requeue`` gives a failed trial's values to a new one, which the next to ask is given first.
A twin, which repeats what another trial repeats already, fails and is not queued again.
A worker that was silent for so long that its trial was given to another finds it FAIL when it tells
how it went: that one's end is the one that counts.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from engine.training.signals import Interrupted, sigterm_raises
from engine.tuning.search import Search
from engine.tuning.study.claims import Claim, held
from engine.tuning.study.folder import StudyFolder
from engine.tuning.study.proposals import Proposer
from engine.tuning.study.storage import PatientStorage
from engine.tuning.study.trial_owner import OWNER, is_lost, is_ours, this_process
from engine.tuning.study.trials import OUTCOME, all_non_finite, outcome_of

RETRIES = "retry_history"  # system attribute of a trial that repeats others: their numbers
POLL = 1.0  # seconds between looks at trials that others are running

Stopped = Literal["done", "timeout", "non-finite", "alone"]
"""Why a worker stops: all trials have ended, time is up, all diverge, or its starter has died."""


class WithdrawnError(Exception):
    """The claim was lost while asking, or the trial is a twin; it is given up before it trains."""


class Runner(Protocol):
    """Who trains; see :class:`engine.tuning.study.trial.TrialRunner`."""

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Return the values of the keys that exist in this trial."""
        ...

    def train(self, trial: Trial, params: Mapping[str, Any]) -> float | Sequence[float]:
        """Return what a trial with these values is worth."""
        ...


@dataclass
class Worker:
    """One process's share of a study.

    Attributes:
        num_trials: parameter sets to end; None where only time ends the search.
        deadline: ``time.monotonic()`` after which no trial begins.
        refresh: called with the study between trials and while waiting.
        is_wanted: asked before each trial; a worker whose starter is gone ends.
    """

    search: Search
    folder: StudyFolder
    study: optuna.Study
    storage: PatientStorage
    claim: Claim
    runner: Runner
    num_trials: int | None
    deadline: float
    refresh: Callable[[optuna.Study], None]
    is_wanted: Callable[[], bool] = lambda: True
    _trained: int | None = None  # the trial whose end is about to be told

    def run(self) -> Stopped:
        """Work until nothing is left to do, and return why.

        Raises:
            Interrupted: by a signal; the trial is back in the queue.
            ConfigError: a mistake that only the data, timm or the machine could reveal.
            StorageLostError: the storage has been gone for too long.
        """
        self.study.sampler = Proposer(self.search, self.study)
        with sigterm_raises():
            while True:
                self.claim.acquire()
                try:
                    requeue_lost(self.study, self.storage)
                    place = self._place()
                    if place == "free":
                        self._ask_and_train()
                except (Interrupted, KeyboardInterrupt):
                    with held(self.claim):  # for others to take at once
                        requeue_lost(self.study, self.storage, is_leaving=True)
                    raise
                finally:
                    self.claim.release()
                self.refresh(self.study)
                if place == "taken":
                    time.sleep(POLL)
                elif place != "free":
                    return place

    def _place(self) -> Literal["free", "taken"] | Stopped:
        """Return whether another trial may begin; only true under the claim."""
        # One look: a trial that ended between two would be in neither count, and its place free.
        trials = self.study.get_trials(deepcopy=False)
        ended = [trial for trial in trials if outcome_of(trial) is not None]
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        if self.num_trials is not None and len(ended) >= self.num_trials:
            return "done"
        if all_non_finite(ended):
            return "non-finite"
        if not self.is_wanted():
            return "alone"
        if time.monotonic() > self.deadline:
            # What is confirmed follows from all trials: a worker that went ahead of a trial still
            # running would train other settings than the worker that ends it.
            return "taken" if running else "timeout"
        if self.num_trials is None or len(ended) + len(running) < self.num_trials:
            return "free"
        return "taken"

    def _ask_and_train(self) -> None:
        self._trained = None
        try:
            self.study.optimize(self._objective, n_trials=1, catch=(WithdrawnError,))
        except (UpdateFinishedTrialError, ValueError, AssertionError):
            # These are Optuna's words for a trial that is over already: this process was silent for
            # longer than the grace, and its trial given to another, which takes the result from the
            # run folder. That one's end is the one that counts.
            if not self._is_over_elsewhere():
                raise
        with held(self.claim):
            self.folder.write_csv(self.study, self.search)

    def _objective(self, trial: Trial) -> float | Sequence[float]:
        """Train, and remember the trial whose end Optuna is about to tell the storage."""
        try:
            value = self._train(trial)
        except (UpdateFinishedTrialError, WithdrawnError):
            # Withdrawn: the storage restarted and the claim went with it, so another took the
            # trial, still without an owner, for a dead worker's. Finished: taken on the way.
            self._trained = trial._trial_id
            raise
        self._trained = trial._trial_id
        return value

    def _train(self, trial: Trial) -> float | Sequence[float]:
        """Take the trial and fix its values under the claim, release the claim, then train."""
        # Before the claim goes: Optuna's own first sign of life may come a moment later.
        self.storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr(OWNER, this_process(trial.number))
        stored = self.storage.get_trial(trial._trial_id)
        if OUTCOME in stored.user_attrs:  # of a retried trial's first try
            trial.set_user_attr(OUTCOME, "pruned")
        if not self.claim.is_held() or self._is_twin(stored):
            raise WithdrawnError
        params = self.runner.suggest(trial)
        self.claim.release()
        self.refresh(self.study)
        return self.runner.train(trial, params)

    def _is_twin(self, trial: FrozenTrial) -> bool:
        """Return whether the trial repeats one that another trial repeats already."""
        return bool(_history(trial)) and trial.number in _twins(
            self.study.get_trials(deepcopy=False)
        )

    def _is_over_elsewhere(self) -> bool:
        return (
            self._trained is not None and self.storage.get_trial(self._trained).state.is_finished()
        )


def requeue_lost(study: optuna.Study, storage: PatientStorage, *, is_leaving: bool = False) -> None:
    """Put the trials of dead workers back into the queue; only under the claim.

    A process that is leaving counts itself among them.

    Each step can be cut short and is then made by the next holder of the claim: a trial that has
    failed and has no successor is given one.
    """
    trials = study.get_trials(deepcopy=False)
    has_lost = False
    for trial in trials:
        is_free = is_lost(trial) or (is_leaving and is_ours(trial))
        if trial.state == TrialState.RUNNING and is_free:
            # A server that went away may have taken the first try and only its answer was lost.
            with contextlib.suppress(UpdateFinishedTrialError):
                storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
            has_lost = True
    if has_lost:
        trials = study.get_trials(deepcopy=False)
    tried_again = {number for trial in trials for number in _history(trial)}
    twins = _twins(trials)
    for trial in trials:
        if trial.number in twins:
            if trial.state == TrialState.WAITING:
                storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
        elif (
            trial.state == TrialState.FAIL
            and trial.number not in tried_again
            and _has_values(trial)
        ):
            # Copied, since Optuna's callback adds to the list of earlier tries that it is given.
            storage.requeue(study, copy.deepcopy(trial))


def _history(trial: FrozenTrial) -> list[int]:
    """Return the numbers of the tries before this one, which Optuna's retry callback keeps."""
    history: list[int] = trial.system_attrs.get(RETRIES, [])
    return history


def _twins(trials: Sequence[FrozenTrial]) -> set[int]:
    """Return the trials that repeat a failed one after another trial does so already.

    There is one where a worker lost the claim between failing a trial and queueing it again, and
    the next holder of the claim had queued it, too. It is no place, and is never repeated itself.
    """
    found = set()
    repeated = set()
    for trial in sorted(trials, key=lambda trial: trial.number):
        if history := _history(trial):
            if history[-1] in repeated:
                found.add(trial.number)
            repeated.add(history[-1])
    return found


def _has_values(trial: FrozenTrial) -> bool:
    return bool(trial.params) or "fixed_params" in trial.system_attrs
