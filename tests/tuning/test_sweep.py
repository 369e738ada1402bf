"""A sweep, as a user would start it: what arrives, what is refused, what is counted."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sweep
import train
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.training import build, setup
from engine.training.run_folder import RunFolder
from engine.training.signals import EndedEarly
from engine.tuning.search import Search
from engine.tuning.study import trial as trial_module
from engine.tuning.study.trials import RUN, ended_trials, outcome_of
from tests._runs import quiet_screen, rows_of, small_config
from tests.report._wandb_log import records, values_of
from tests.tuning._sweeps import (
    STUDY,
    arguments,
    check_arrival,
    folder_of,
    search_of,
    small_sweep,
    study_of,
)

MIXED = """
budget: {trials: 3, epochs: 1}
sampler: random
set: {loss: softmax_focal}
space:
  loss.gamma: {float: [0, 5]}
  optim.batch_size: {int: [8, 16], step: 8}
  reweight: {choice: [none, power]}
  reweight.power: {float: [0.5, 1.5], where: {reweight: power}}
enqueue:
  - {loss.gamma: 0, optim.batch_size: 8, reweight: none}
  - {loss.gamma: 2, reweight: power}
confirm: {top: 0}
"""
ONE = """
budget: {trials: 1, epochs: 2}
space: {optim.lr: {float: [0.01, 0.1]}}
enqueue: [{optim.lr: 0.05}]
confirm: {top: 0}
"""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a small sweep that has ended."""
    root = tmp_path_factory.mktemp("mixed")
    assert small_sweep(root, MIXED) == 0
    return root


def wandb_summary(path: Path) -> dict[str, Any]:
    """What stands for the whole run in a ``.wandb`` file."""
    found: dict[str, Any] = {}
    for record in records(path, "summary"):
        found |= values_of(record.update)
    return found


def one_trial(root: Path) -> RunFolder:
    (trial,) = ended_trials(study_of(root))
    return RunFolder(folder_of(root).runs / trial.user_attrs[RUN])


# --- what arrives ---------------------------------------------------------------------------------


def test_every_sampled_value_arrives_in_the_run_of_its_trial(mixed: Path) -> None:
    check_arrival(mixed)
    trials = ended_trials(study_of(mixed))
    assert len({trial.user_attrs[RUN] for trial in trials}) == 3
    assert trials[0].params == {
        "loss.gamma": 0.0, "optim.batch_size": 8, "reweight.scheme": "none"
    }  # fmt: skip
    assert trials[1].params["loss.gamma"] == 2.0
    assert "reweight.power" in trials[1].params


def test_a_tuner_that_drops_the_first_key_does_not_pass_that_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Search.config

    def forgetful(self: Search, params: Mapping[str, Any]) -> Config:
        return config(self, dict(list(params.items())[1:]))

    monkeypatch.setattr(Search, "config", forgetful)
    assert small_sweep(tmp_path, MIXED, trials=2) == 0
    with pytest.raises(AssertionError):
        check_arrival(tmp_path)


def test_the_value_of_a_trial_is_the_best_epoch_of_its_log(mixed: Path) -> None:
    for trial in ended_trials(study_of(mixed)):
        rows = rows_of(folder_of(mixed).runs / trial.user_attrs[RUN])
        assert trial.value == max(row["val/balanced_accuracy"] for row in rows)


def test_trials_csv_has_a_row_for_each_trial_with_its_run_folder(mixed: Path) -> None:
    with folder_of(mixed).trials_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    assert {row["outcome"] for row in rows} == {"complete"}
    for row, trial in zip(rows, ended_trials(study_of(mixed)), strict=True):
        assert float(row["val/balanced_accuracy"]) == trial.value
        assert float(row["loss.gamma"]) == trial.params["loss.gamma"]
        assert (folder_of(mixed).runs / row["run"] / "metrics.jsonl").exists()


def test_data_are_loaded_once_for_all_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_dataset, loaded = setup.load_dataset, []

    def counted(config: Config) -> Any:
        loaded.append(config.data.name)
        return load_dataset(config)

    monkeypatch.setattr(setup, "load_dataset", counted)
    assert small_sweep(tmp_path, MIXED, trials=2) == 0
    assert loaded == ["synthetic"]


# --- test is left alone ---------------------------------------------------------------------------


def test_a_trial_never_predicts_test(mixed: Path) -> None:
    for run in folder_of(mixed).runs.iterdir():
        files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
        assert not any("test" in name or name == "summary.json" for name in files)
        content = json.loads((run / "validation.json").read_text())
        assert all(result["test"] == {} for result in content["rules"].values())
        assert content["rules"]["val"]["val"]["balanced_accuracy"] is not None
        assert not any("test" in row for row in (run / "metrics.jsonl").read_text().splitlines())


def test_a_run_that_left_test_alone_goes_on_to_test_without_training_again(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    left_alone = train.run(config, test=False, screen=quiet_screen())
    (folder,) = tmp_path.glob("*/*")
    log = (folder / "metrics.jsonl").read_bytes()
    assert not (folder / "summary.json").exists()
    whole = train.run(config, screen=quiet_screen())
    assert (folder / "metrics.jsonl").read_bytes() == log
    assert whole.result.test["balanced_accuracy"] is not None
    assert whole.result.val == left_alone.result.val
    assert train.run(config, test=False, screen=quiet_screen()) == whole


def test_a_run_that_left_test_alone_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path, "schedule.epochs=1")
    first = train.run(config, test=False, screen=quiet_screen())
    monkeypatch.setattr(build, "build_trainer", None)  # nothing is trained any more
    assert train.run(config, test=False, screen=quiet_screen()) == first


def test_a_run_that_logs_test_each_epoch_cannot_leave_test_alone(tmp_path: Path) -> None:
    config = small_config(tmp_path, "evaluate.test_every_epoch=true")
    with pytest.raises(ConfigError, match="to leave test alone"):
        train.run(config, test=False, screen=quiet_screen())
    assert list(tmp_path.iterdir()) == []


# --- again, and elsewhere -------------------------------------------------------------------------


def test_the_same_command_goes_on_and_a_larger_budget_adds_trials(tmp_path: Path) -> None:
    assert small_sweep(tmp_path, MIXED, trials=1) == 0
    first = [trial.params for trial in ended_trials(study_of(tmp_path))]
    assert small_sweep(tmp_path, MIXED, trials=1) == 0
    assert [trial.params for trial in ended_trials(study_of(tmp_path))] == first
    assert small_sweep(tmp_path, MIXED, trials=2) == 0
    found = [trial.params for trial in ended_trials(study_of(tmp_path))]
    assert found[:1] == first
    assert len(found) == 2


def test_a_sweep_in_two_sittings_is_the_sweep_in_one(mixed: Path, tmp_path: Path) -> None:
    for trials in (1, 3):
        assert small_sweep(tmp_path, MIXED, trials=trials) == 0
    a, b = (ended_trials(study_of(root)) for root in (mixed, tmp_path))
    assert [(trial.params, trial.value) for trial in a] == [(t.params, t.value) for t in b]


def test_another_search_under_the_same_name_is_refused(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert small_sweep(mixed, MIXED.replace("[0, 5]", "[0, 4]")) == 2
    assert "is a study of another search (space changed)" in capsys.readouterr().err
    assert small_sweep(mixed, MIXED, "optim.momentum=0.8") == 2
    assert "(base changed)" in capsys.readouterr().err


def test_a_run_that_another_process_is_writing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "second"
    for path in (tmp_path / "first", root):
        path.mkdir()
    assert small_sweep(tmp_path / "first", ONE) == 0
    folder = RunFolder(folder_of(root).runs / one_trial(tmp_path / "first").path.name)
    waits: list[float] = []
    with contextlib.ExitStack() as other:
        other.enter_context(folder.owned())

        def wait(seconds: float) -> None:
            waits.append(seconds)
            other.close()

        monkeypatch.setattr(trial_module, "time", SimpleNamespace(sleep=wait))
        assert small_sweep(root, ONE) == 0
    assert waits == [trial_module.WAIT]
    assert rows_of(one_trial(root).path) == rows_of(one_trial(tmp_path / "first").path)


def test_a_trial_whose_run_is_finished_takes_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small_sweep(tmp_path, ONE) == 0
    value = ended_trials(study_of(tmp_path))[0].value
    folder_of(tmp_path).database.unlink()
    monkeypatch.setattr(build, "build_trainer", None)  # nothing is trained any more
    assert small_sweep(tmp_path, ONE) == 0
    assert ended_trials(study_of(tmp_path))[0].value == value


# --- outcomes -------------------------------------------------------------------------------------


def test_ten_trials_that_diverge_in_a_row_stop_the_sweep_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
budget: {trials: 20, epochs: 1}
sampler: random
space: {optim.lr: {float: [1.0e+28, 1.0e+30], log: true}}
confirm: {top: 0}
"""
    assert small_sweep(tmp_path, text) == 1
    assert "the last ten trials have all diverged" in capsys.readouterr().err
    trials = study_of(tmp_path).get_trials()
    assert [outcome_of(trial) for trial in trials] == ["non-finite"] * 10


def test_a_space_that_is_smaller_than_the_budget_says_so_and_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
budget: {trials: 5, epochs: 1}
space: {model.head: {choice: [linear, cosine]}}
confirm: {top: 0}
"""
    assert small_sweep(tmp_path, text) == 0
    assert "budget.trials is 5, and the space has 2 parameter sets" in capsys.readouterr().out
    heads = [trial.params["model.head"] for trial in ended_trials(study_of(tmp_path))]
    assert sorted(heads) == ["cosine", "linear"]


def test_a_run_that_is_known_to_diverge_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
budget: {trials: 2, epochs: 1}
sampler: random
space: {optim.lr: {float: [0.01, 1.0e+30], log: true}}
enqueue: [{optim.lr: 1.0e+29}]
confirm: {top: 0}
"""
    assert small_sweep(tmp_path, text, trials=1) == 0
    study = study_of(tmp_path)
    study.enqueue_trial(study.trials[0].params)  # by hand: a proposal is never repeated
    monkeypatch.setattr(train, "run", None)  # nothing is trained any more
    assert small_sweep(tmp_path, text) == 0
    assert [outcome_of(trial) for trial in study_of(tmp_path).trials] == ["non-finite"] * 2


def test_two_metrics_are_searched_at_once_and_come_from_one_epoch(tmp_path: Path) -> None:
    text = MIXED.replace(
        "budget", "metric: [val/balanced_accuracy, val/worst_class_recall]\nbudget"
    )
    assert small_sweep(tmp_path, text, trials=2) == 0
    for trial in ended_trials(study_of(tmp_path)):
        (row,) = rows_of(folder_of(tmp_path).runs / trial.user_attrs[RUN])
        assert trial.values == [row["val/balanced_accuracy"], row["val/worst_class_recall"]]


def test_a_trial_that_is_behind_is_pruned_after_the_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pruner and all around it are real; a run's accuracy is its rate, at every epoch."""
    seen: dict[float, list[int]] = {}

    def run(config: Config, *, report: train.Report, **_: Any) -> Any:
        rate = config.optim.lr
        for epoch in range(1, 5):
            seen.setdefault(rate, []).append(epoch)
            report(epoch, {"epoch": epoch, "val/balanced_accuracy": rate})
        return SimpleNamespace(result=SimpleNamespace(val={"balanced_accuracy": rate}))

    monkeypatch.setattr(train, "run", run)
    text = """
budget: {trials: 7, epochs: 4}
pruner: {name: median, warmup: 0.5}
space: {optim.lr: {float: [0.01, 0.1]}}
enqueue: [{optim.lr: 0.05}, {optim.lr: 0.06}, {optim.lr: 0.04}, {optim.lr: 0.07},
          {optim.lr: 0.03}, {optim.lr: 0.01}, {optim.lr: 0.1}]
confirm: {top: 0}
"""
    assert small_sweep(tmp_path, text) == 0
    outcomes = [outcome_of(trial) for trial in ended_trials(study_of(tmp_path))]
    assert outcomes == ["complete"] * 5 + ["pruned", "complete"]
    assert seen[0.01] == [1, 2]
    assert seen[0.1] == [1, 2, 3, 4]
    with folder_of(tmp_path).trials_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ["val/balanced_accuracy", "last_epoch", "last_value"]
    assert [rows[5][column] for column in columns] == ["", "2", "0.01"]
    assert [rows[6][column] for column in columns] == ["0.1", "", ""]


def test_a_trial_that_its_own_patience_ends_is_whole_and_not_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last trial is behind when it ends: without patience the pruner would take it."""

    def run(config: Config, *, report: train.Report, **_: Any) -> Any:
        rate = config.optim.lr
        for epoch in range(1, 3 if config.schedule.patience else 5):
            report(epoch, {"epoch": epoch, "val/balanced_accuracy": rate})
        return SimpleNamespace(result=SimpleNamespace(val={"balanced_accuracy": rate}))

    monkeypatch.setattr(train, "run", run)
    text = """
budget: {trials: 6, epochs: 4}
pruner: {name: median, warmup: 0.5}
space: {optim.lr: {float: [0.01, 0.1]}}
enqueue: [{optim.lr: 0.05}, {optim.lr: 0.06}, {optim.lr: 0.04}, {optim.lr: 0.07},
          {optim.lr: 0.03}, {optim.lr: 0.01}]
confirm: {top: 0}
"""
    for name, words in (("whole", ()), ("patient", ("schedule.patience=1",))):
        (tmp_path / name).mkdir()
        assert small_sweep(tmp_path / name, text, *words) == 0
    outcomes = {
        name: outcome_of(ended_trials(study_of(tmp_path / name))[-1])
        for name in ("whole", "patient")
    }
    assert outcomes == {"whole": "pruned", "patient": "complete"}


def test_a_run_that_its_report_ends_early_has_not_failed_and_can_go_on(tmp_path: Path) -> None:
    config = small_config(tmp_path)

    def report(epoch: int, _row: Mapping[str, Any]) -> None:
        if epoch == 2:
            raise EndedEarly

    with pytest.raises(EndedEarly):
        train.run(config, report=report, test=False, screen=quiet_screen())
    (folder,) = tmp_path.glob("*/*")
    assert len(rows_of(folder)) == 2
    assert not (folder / "validation.json").exists()
    train.run(config, test=False, screen=quiet_screen())
    assert len(rows_of(folder)) == 3


def test_seeds_of_a_trial_are_averaged(tmp_path: Path) -> None:
    text = ONE.replace("confirm", "seeds: 2\nconfirm")
    assert small_sweep(tmp_path, text) == 0
    (trial,) = ended_trials(study_of(tmp_path))
    best = [
        max(row["val/balanced_accuracy"] for row in rows_of(run))
        for run in folder_of(tmp_path).runs.iterdir()
    ]
    assert len(best) == 2
    assert trial.value == pytest.approx(sum(best) / 2)


# --- secrets --------------------------------------------------------------------------------------


def test_the_password_of_a_storage_reaches_no_text_and_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(tmp_path, ONE)
    code = sweep.main([*words, "storage=postgresql://me:hunter2%21@127.0.0.1:1/studies"])
    said = capsys.readouterr()
    assert code == 2
    assert "storage=postgresql+psycopg://me:***@127.0.0.1:1/studies: cannot be used" in said.err
    assert "hunter2" not in said.out + said.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"hunter2" in path.read_bytes() for path in files)


def test_a_database_that_studies_cannot_live_in_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for url in ("mysql://me:hunter2@host/db", "nonsense"):
        assert sweep.main([*arguments(tmp_path, ONE), f"storage={url}"]) == 2
    said = capsys.readouterr().err
    assert "expected sqlite:/// or postgresql://" in said
    assert "storage: not a URL" in said
    assert "hunter2" not in said


def test_a_search_is_described_by_its_file_and_base(tmp_path: Path) -> None:
    a, b = search_of(tmp_path, ONE), search_of(tmp_path, ONE, "optim.momentum=0.8")
    assert a.identity() != b.identity()
    assert a.identity() == search_of(tmp_path, ONE.replace("trials: 1", "trials: 9")).identity()


# --- W&B ------------------------------------------------------------------------------------------


def test_every_trial_is_a_run_of_the_studys_group_with_its_objective_and_so_is_the_study(
    tmp_path: Path,
) -> None:
    words = [*arguments(tmp_path, MIXED, "track.wandb=offline"), "--trials", "1"]
    assert sweep.main(words) == 0
    (trial,) = ended_trials(study_of(tmp_path))
    folder = folder_of(tmp_path)
    (of_trial,) = (folder.runs / trial.user_attrs[RUN] / "wandb").glob("offline-*/*.wandb")
    (of_study,) = (folder.path / "wandb").glob("offline-*/*.wandb")
    groups = {run.run_group for path in (of_trial, of_study) for run in records(path, "run")}
    assert groups == {STUDY}
    for path in (of_trial, of_study):
        assert wandb_summary(path)["objective"] == trial.value
    assert wandb_summary(of_study)["best/loss.gamma"] == 0.0
    images = [path.name for path in (folder.path / "wandb").rglob("media/images/figures/*.png")]
    assert any(name.startswith("history") for name in images)
