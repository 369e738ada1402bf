"""What is tried next: never twice, and learnt from every trial that has ended."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial, Trial, TrialState

from engine.tuning.search import Search
from engine.tuning.search.reader import read_search_file
from engine.tuning.search.space import constants_of, num_trials, suggest
from engine.tuning.study.optuna_parts import LateMedianPruner
from engine.tuning.study.proposals import Proposer, copied
from engine.tuning.study.trials import OUTCOME, ended_trials, identity_of

LOSSES = """
budget: {trials: 8}
space:
  loss: {choice: [cross_entropy, softmax_focal, balanced_softmax, logit_adjustment, ldam, poly,
                  seesaw, equalization]}
"""
PLANE = """
budget: {trials: 30}
set: {loss: softmax_focal, reweight: power}
space:
  loss.gamma: {float: [0, 5]}
  reweight.power: {float: [0, 1.5]}
"""

Objective = Callable[[Trial, dict[str, Any]], float]


def search_of(folder: Path, text: str, *, sampler: str) -> Search:
    path = folder / "search.yaml"
    path.write_text(f"sampler: {sampler}\n{text}")
    return Search(read_search_file(path), path=path, files=(), overrides=(), study="s")


def searched(
    search: Search, objective: Objective, *, pruner: optuna.pruners.BasePruner | None = None
) -> list[FrozenTrial]:
    """Make as many trials as the search asks for, in one process and without training."""
    study = optuna.create_study(direction="maximize", pruner=pruner or NopPruner())
    for values in search.file.enqueue:
        study.enqueue_trial(dict(values))
    study.sampler = Proposer(search, study)
    space, constants = search.file.space, constants_of(search)
    number = num_trials(search)
    study.optimize(lambda t: objective(t, suggest(t, space, constants=constants)), n_trials=number)
    return ended_trials(study)


def hill(_trial: Trial, values: dict[str, Any]) -> float:
    return -((values["loss.gamma"] - 4) ** 2) - (values["reweight.power"] - 1) ** 2


def pruned_on_one_side(trial: Trial, values: dict[str, Any]) -> float:
    """Four of five points at random are pruned: as a median pruner does, once it has seen some."""
    trial.report(hill(trial, values), step=1)
    if values["loss.gamma"] < 4:
        raise optuna.TrialPruned
    return hill(trial, values)


def diverging_on_one_side(trial: Trial, values: dict[str, Any]) -> float:
    if values["loss.gamma"] > 2:
        trial.set_user_attr(OUTCOME, "non-finite")
        raise optuna.TrialPruned
    return hill(trial, values)


def num_distinct(trials: list[FrozenTrial]) -> int:
    return len({identity_of(trial.params) for trial in trials})


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "grid"])
def test_eight_trials_of_a_choice_of_eight_try_all_eight(tmp_path: Path, sampler: str) -> None:
    search = search_of(tmp_path, LOSSES, sampler=sampler)
    trials = searched(search, lambda _, values: float(values["loss.name"] == "cross_entropy"))
    assert len({trial.params["loss.name"] for trial in trials}) == len(trials) == 8


@pytest.mark.parametrize("objective", [pruned_on_one_side, diverging_on_one_side])
def test_a_gaussian_process_learns_from_trials_that_did_not_end_whole(
    tmp_path: Path, objective: Objective
) -> None:
    """Its own part begins with the eleventh trial; at random it would go as before."""

    def whole_of(sampler: str) -> list[bool]:
        trials = searched(search_of(tmp_path, PLANE, sampler=sampler), objective)
        assert num_distinct(trials) == 30
        return [trial.state == TrialState.COMPLETE for trial in trials]

    found, random = whole_of("gp"), whole_of("random")
    assert found[:10] == random[:10]
    assert sum(found[10:]) >= sum(random[10:]) + 5


def test_trials_that_did_not_end_whole_are_worth_the_worst_whole_one_to_a_gaussian_process(
    tmp_path: Path,
) -> None:
    search = search_of(tmp_path, PLANE, sampler="gp")
    study = optuna.create_study(direction="maximize")
    for state, value in ((TrialState.COMPLETE, 0.4), (TrialState.COMPLETE, 0.9)):
        study.add_trial(optuna.trial.create_trial(state=state, value=value))
    for reported in ({1: 0.7}, {}):
        study.add_trial(
            optuna.trial.create_trial(state=TrialState.PRUNED, intermediate_values=reported)
        )
    found = copied(study, study.trials, search).trials
    assert [(trial.state.name, trial.value) for trial in found] == [
        ("COMPLETE", 0.4), ("COMPLETE", 0.9), ("COMPLETE", 0.4), ("COMPLETE", 0.4)
    ]  # fmt: skip


def test_to_tpe_a_trial_that_diverged_late_is_no_better_than_one_that_was_pruned_early(
    tmp_path: Path,
) -> None:
    search = search_of(tmp_path, PLANE, sampler="tpe")
    study = optuna.create_study(direction="maximize")
    for attributes in ({}, {OUTCOME: "non-finite"}):
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.PRUNED, intermediate_values={5: 0.9}, user_attrs=attributes
            )
        )
    pruned, diverged = copied(study, study.trials, search).trials
    assert pruned.intermediate_values == {5: 0.9}
    assert diverged.intermediate_values == {}


def test_with_hyperband_tpe_learns_from_the_trials_of_all_brackets(tmp_path: Path) -> None:
    search = search_of(tmp_path, PLANE, sampler="tpe")
    alone = searched(search, hill)
    hyperband = HyperbandPruner(min_resource=1, max_resource=9, reduction_factor=3)
    found = searched(search, hill, pruner=hyperband)
    assert [trial.params for trial in found] == [trial.params for trial in alone]


def test_a_queue_that_leaves_keys_open_repeats_no_cell_of_a_grid(tmp_path: Path) -> None:
    text = """
set: {loss: softmax_focal}
space:
  loss.gamma: {float: [0, 2], step: 1}
  model.head: {choice: [linear, cosine]}
enqueue: [{loss.gamma: 1}, {model.head: cosine}]
"""
    trials = searched(search_of(tmp_path, text, sampler="grid"), lambda *_: 0.0)
    assert num_distinct(trials) == len(trials) == 6
    assert trials[0].params["loss.gamma"] == 1
    assert trials[1].params["model.head"] == "cosine"


def test_values_in_steps_are_those_that_the_file_would_name(tmp_path: Path) -> None:
    text = "budget: {trials: 20}\nspace: {reweight.start: {float: [0.1, 0.7], step: 0.1}}\n"
    search = search_of(tmp_path, text + "set: {reweight: inverse}\n", sampler="random")
    found = {trial.params["reweight.start"] for trial in searched(search, lambda *_: 0.0)}
    assert found == {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7}


def test_a_branch_that_is_used_up_is_left_for_the_endless_one(tmp_path: Path) -> None:
    text = """
budget: {trials: 20}
space:
  loss: {choice: [cross_entropy, softmax_focal]}
  loss.gamma: {float: [0, 5], where: {loss: softmax_focal}}
"""
    trials = searched(search_of(tmp_path, text, sampler="tpe"), lambda *_: math.pi)
    assert num_distinct(trials) == len(trials) == 20


def test_the_median_pruner_decides_as_optunas_and_looks_at_no_trial_in_its_warmup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = optuna.create_study(direction="maximize")
    options = {"n_startup_trials": 2, "n_warmup_steps": 3}
    for number in range(4):
        trial = study.ask()
        for step in range(1, 7):
            trial.report((number * step * 7) % 5, step=step)
        study.tell(trial, float(number))
    looks: list[int] = []
    get_trials = optuna.Study.get_trials

    def noted(*arguments: Any, **options: Any) -> list[FrozenTrial]:
        looks.append(1)
        return get_trials(*arguments, **options)

    monkeypatch.setattr(optuna.Study, "get_trials", noted)
    running = study.ask()
    decided = []
    for step, value in enumerate((0, 0, 1, 0.5, 0, 0), start=1):
        running.report(value, step=step)
        frozen = study.trials[-1]
        before = len(looks)
        decided.append(LateMedianPruner(**options).prune(study, frozen))
        assert (len(looks) > before) == (step >= 3)
        assert decided[-1] == MedianPruner(**options).prune(study, frozen)
    assert {True, False} == set(decided[2:])
