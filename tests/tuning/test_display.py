"""What a person sees of a search while it runs."""

from __future__ import annotations

import io

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console

from engine.tuning.study.display import Display
from engine.tuning.study.trials import OUTCOME


def trial_of(state: TrialState, value: float | None = None, **attributes: str) -> FrozenTrial:
    params = {"loss.gamma": 1.23456} if state.is_finished() else {}
    distributions = {key: FloatDistribution(0, 5) for key in params}
    return create_trial(
        state=state,
        value=value,
        params=params,
        distributions=distributions,
        user_attrs=attributes,
    )


@pytest.fixture
def study() -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    study.add_trial(trial_of(TrialState.COMPLETE, 0.5))
    study.add_trial(trial_of(TrialState.FAIL))
    study.add_trial(trial_of(TrialState.PRUNED))
    study.add_trial(trial_of(TrialState.PRUNED, **{OUTCOME: "non-finite"}))
    study.add_trial(trial_of(TrialState.COMPLETE, 0.75))
    study.add_trial(trial_of(TrialState.RUNNING))
    return study


def display_of(*, is_terminal: bool) -> tuple[Display, io.StringIO]:
    output = io.StringIO()
    console = Console(file=output, width=90, force_terminal=is_terminal, highlight=False)
    return Display(["val/accuracy"], num_trials=8, console=console), output


def test_without_a_terminal_every_trial_that_ends_is_one_line_said_once(
    study: optuna.Study,
) -> None:
    display, output = display_of(is_terminal=False)
    with display.live():
        display.show(study)
        display.show(study)
    lines = output.getvalue().splitlines()
    assert [line[:15] for line in lines] == [
        "trial   0 (1/8)", "trial   2 (2/8)", "trial   3 (3/8)", "trial   4 (4/8)"
    ]  # fmt: skip
    assert "0.5000   loss.gamma=1.235   best 0.7500 (trial 4)" in lines[0]
    assert "pruned" in lines[1]
    assert "non-finite" in lines[2]


def test_a_terminal_has_a_table_of_what_is_done_running_pruned_failed_best_and_left(
    study: optuna.Study,
) -> None:
    display, output = display_of(is_terminal=True)
    display.begin(optuna.create_study())
    with display.live():
        display.epoch(5, 2, 15)
        display.show(study)
    shown = output.getvalue()
    for heading in ("done", "running", "pruned", "failed", "best so far", "left"):
        assert heading in shown
    row = next(line for line in shown.splitlines() if "4/8" in line)
    assert row.split()[:7] == ["4/8", "1", "1", "1", "0.7500", "(trial", "4)"]
    assert "trial 5: epoch 2/15" in shown


def test_what_had_ended_before_is_counted_and_not_said_again(study: optuna.Study) -> None:
    display, output = display_of(is_terminal=False)
    display.begin(study)
    display.show(study)
    assert output.getvalue() == "4 of 8 trials have ended already\n"
