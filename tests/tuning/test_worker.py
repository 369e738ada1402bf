"""Claims, places and owners: how a study is shared, with trials that train nothing."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import Trial, TrialState

from engine.config.mistakes import ConfigError
from engine.training.signals import Interrupted
from engine.tuning.search.space import num_trials
from engine.tuning.study import trial_owner
from engine.tuning.study.address import Address
from engine.tuning.study.claims import Claim, FileClaim
from engine.tuning.study.folder import StudyFolder
from engine.tuning.study.storage import PatientStorage, StorageLostError, claim_of
from engine.tuning.study.trial_owner import OWNER, is_lost, this_process
from engine.tuning.study.trials import ended_trials
from engine.tuning.study.worker import Worker, requeue_lost
from tests.tuning._storm import SEARCH, QuickRunner, opened, search_of

TEXT = SEARCH.replace("24", "4")


class Seat:
    """A worker of a study in a folder, and what it works on."""

    def __init__(self, folder: Path, text: str = TEXT) -> None:
        path = folder / "search.yaml"
        path.write_text(text)
        self.search = search_of(path)
        self.study, self.storage = opened(folder, self.search, None)
        self.claim: Claim = claim_of(self.storage, study=self.search.study)
        self.runner: Any = QuickRunner(self.search, folder / "log.jsonl", seconds=0)
        self.folder = folder

    def worker(self) -> Worker:
        return Worker(
            search=self.search,
            folder=StudyFolder(self.folder),
            study=self.study,
            storage=self.storage,
            claim=self.claim,
            runner=self.runner,
            num_trials=num_trials(self.search),
            deadline=math.inf,
            refresh=lambda _: None,
        )

    def asked(self) -> Trial:
        """A trial that runs, as in another process."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it has no heartbeat
            return self.study.ask()

    def killed(self) -> dict[str, Any]:
        """The values of a trial that runs in a process which has died."""
        trial = self.asked()
        dead = {"process": "4194304-1"}  # beyond all processes
        trial.set_user_attr(OWNER, {**this_process(trial.number), **dead})
        values: dict[str, Any] = self.runner.suggest(trial)
        return values

    def states(self) -> list[str]:
        return [trial.state.name for trial in self.study.get_trials(deepcopy=False)]


@pytest.fixture
def seat(tmp_path: Path) -> Iterator[Seat]:
    seat = Seat(tmp_path)
    yield seat
    seat.storage.engine.dispose()


def test_a_worker_ends_as_many_trials_as_were_asked_for_those_enqueued_first(seat: Seat) -> None:
    assert seat.worker().run() == "done"
    assert seat.states() == ["COMPLETE"] * 4
    first, second, *_ = ended_trials(seat.study)
    assert first.params == {"optim.lr": 0.01, "reweight.scheme": "none"}
    assert second.params["optim.lr"] == 0.02
    assert seat.worker().run() == "done"
    assert seat.states() == ["COMPLETE"] * 4


def test_a_worker_never_asks_while_others_hold_all_places(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four trials run in this live process; they end while the worker waits."""
    for _ in range(4):
        trial = seat.asked()
        trial.set_user_attr(OWNER, this_process(trial.number))
    assert seat.worker()._place() == "taken"
    looks = []

    def wait(_seconds: float) -> None:
        looks.append(seat.states())
        for trial in seat.study.get_trials(states=(TrialState.RUNNING,)):
            seat.study.tell(trial.number, 1.0)

    monkeypatch.setattr("engine.tuning.study.worker.time.sleep", wait)
    assert seat.worker().run() == "done"
    assert looks[0].count("RUNNING") == 4
    assert len(ended_trials(seat.study)) == 4


def test_once_time_is_up_no_trial_begins_and_a_worker_waits_for_those_that_run(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = seat.asked()
    trial.set_user_attr(OWNER, this_process(trial.number))
    looks = []

    def wait(_seconds: float) -> None:
        looks.append(seat.states().count("RUNNING"))
        seat.study.tell(trial.number, 1.0)

    monkeypatch.setattr("engine.tuning.study.worker.time.sleep", wait)
    worker = seat.worker()
    worker.deadline = -math.inf
    assert worker.run() == "timeout"
    assert looks == [1]
    assert seat.states().count("COMPLETE") == 1 and "RUNNING" not in seat.states()


def test_a_claim_that_was_lost_while_asking_gives_the_trial_up(seat: Seat) -> None:
    """Another may have counted in the meantime and taken the last place."""

    class LostOnce(FileClaim):
        losses = 1

        def is_held(self) -> bool:
            self.losses -= 1
            return self.losses < 0 and super().is_held()

    seat.claim = LostOnce(seat.folder / "claim")
    assert seat.worker().run() == "done"
    assert seat.states() == ["FAIL", *["COMPLETE"] * 4]
    assert seat.study.get_trials()[0].params == {}
    assert len(ended_trials(seat.study)) == 4
    assert {t.params["optim.lr"] for t in ended_trials(seat.study)} >= {0.01, 0.02}


def test_an_interrupted_trial_is_back_in_the_queue_at_once(seat: Seat) -> None:
    class Stopped(QuickRunner):
        def train(self, trial: Trial, params: Mapping[str, Any]) -> float:
            raise Interrupted(15)

    usual = seat.runner
    seat.runner = Stopped(seat.search, seat.folder / "stopped.jsonl", seconds=0)
    with pytest.raises(Interrupted):
        seat.worker().run()
    waiting = seat.study.get_trials(states=(TrialState.WAITING,))
    assert {"optim.lr": 0.01, "reweight.scheme": "none"} in [trial.params for trial in waiting]
    seat.runner = usual
    assert seat.worker().run() == "done"
    params = [tuple(trial.params.values()) for trial in ended_trials(seat.study)]
    assert len(set(params)) == 4
    assert (0.01, "none") in params


@pytest.mark.parametrize("where", ["suggest", "train", "told", "between"])
def test_sigterm_at_any_point_of_a_worker_leaves_no_trial_running(seat: Seat, where: str) -> None:
    """Between runs there is no loop that would look whether it ought to stop."""
    raised = []

    def once(at: str) -> None:
        if at == where and not raised:
            raised.append(at)
            signal.raise_signal(signal.SIGTERM)

    class Stopped(QuickRunner):
        def suggest(self, trial: Trial) -> dict[str, Any]:
            once("suggest")
            return super().suggest(trial)

        def train(self, trial: Trial, params: Mapping[str, Any]) -> float:
            once("train")
            value = super().train(trial, params)
            once("told")
            return value

    seat.runner = Stopped(seat.search, seat.folder / "stopped.jsonl", seconds=0)
    worker = seat.worker()
    worker.refresh = lambda _: once("between")
    with pytest.raises(Interrupted) as stop:
        worker.run()
    assert stop.value.exit_code == 143
    assert raised == [where]
    assert "RUNNING" not in seat.states()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert seat.worker().run() == "done"
    assert len({tuple(trial.params.values()) for trial in ended_trials(seat.study)}) == 4


def test_trials_of_a_killed_worker_are_run_again_with_the_same_values(seat: Seat) -> None:
    lost = seat.killed()
    requeue_lost(seat.study, seat.storage)
    requeue_lost(seat.study, seat.storage)  # nothing is queued twice
    assert seat.states().count("FAIL") == 1
    assert seat.worker().run() == "done"
    assert lost in [trial.params for trial in ended_trials(seat.study)]
    assert len(ended_trials(seat.study)) == 4


def test_trials_that_are_killed_twice_are_run_again_with_the_same_values(seat: Seat) -> None:
    """What repeats a trial is repeated itself, also by the worker that has queued both."""
    lost = [seat.killed(), seat.killed()]
    requeue_lost(seat.study, seat.storage)
    assert [seat.killed(), seat.killed()] == lost
    requeue_lost(seat.study, seat.storage)
    assert seat.worker().run() == "done"
    ended = [trial.params for trial in ended_trials(seat.study)]
    assert all(values in ended for values in lost)
    assert sorted(seat.states()) == ["COMPLETE"] * 4 + ["FAIL"] * 4


def test_a_lost_trial_whose_end_was_taken_but_not_answered_is_queued_once(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a server does that goes away after the commit: the second try finds the trial ended."""
    seat.killed()
    real = seat.storage.database.set_trial_state_values

    def twice(*arguments: Any, **options: Any) -> bool:
        real(*arguments, **options)
        return real(*arguments, **options)

    monkeypatch.setattr(seat.storage.database, "set_trial_state_values", twice)
    waiting = seat.states().count("WAITING")
    requeue_lost(seat.study, seat.storage)
    assert seat.states().count("FAIL") == 1
    assert seat.states().count("WAITING") == waiting + 1


def test_a_trial_that_ends_while_places_are_counted_leaves_no_place_free(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever look at the storage its end comes after."""
    trials = [seat.asked() for _ in range(4)]
    for trial in trials:
        trial.set_user_attr(OWNER, this_process(trial.number))
    for trial in trials[:3]:
        seat.study.tell(trial, 1.0)
    real = seat.storage.database.get_all_trials

    def look(*arguments: Any, **options: Any) -> Any:
        seen = real(*arguments, **options)
        if trials:
            seat.storage.set_trial_state_values(trials.pop()._trial_id, TrialState.COMPLETE, [1.0])
            trials.clear()
        return seen

    monkeypatch.setattr(seat.storage.database, "get_all_trials", look)
    assert seat.worker()._place() == "taken"
    assert seat.worker()._place() == "done"


CHANGES = [
    "create_new_trial",
    "set_study_user_attr",
    "set_study_system_attr",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "record_heartbeat",
]


def no_answers(storage: PatientStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the database take every change, and go away before it says so; it answers next time."""
    monkeypatch.setattr("engine.tuning.study.storage.time.sleep", lambda _: None)
    is_gone = {"now": False}

    def unanswered(method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            is_gone["now"] = not is_gone["now"]
            found = method(*arguments, **options)
            if is_gone["now"]:
                raise StorageInternalError("server closed the connection")
            return found

        return call

    for name in CHANGES:
        monkeypatch.setattr(storage.database, name, unanswered(getattr(storage.database, name)))


def test_a_search_whose_database_never_answers_a_change_at_once_counts_as_any_other(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = seat.asked()
    values = seat.runner.suggest(lost)
    seat.study.enqueue_trial({"optim.lr": 0.03})
    no_answers(seat.storage, monkeypatch)
    seat.study.enqueue_trial({"optim.lr": 0.04})
    assert seat.worker().run() == "done"
    ended = ended_trials(seat.study)
    assert sorted(seat.states()) == ["COMPLETE"] * 4 + ["FAIL"]
    assert len({tuple(trial.params.values()) for trial in ended}) == 4
    assert values in [trial.params for trial in ended]
    assert {0.02, 0.03, 0.04} <= {trial.params["optim.lr"] for trial in ended}


def test_a_lost_trial_that_two_workers_have_queued_again_is_run_once(seat: Seat) -> None:
    """The first had failed it and lost the claim; the second saw it failed and not repeated."""
    lost = seat.asked()
    seat.runner.suggest(lost)
    requeue_lost(seat.study, seat.storage)
    (failed,) = seat.study.get_trials(states=(TrialState.FAIL,))
    seat.storage.requeue(seat.study, failed)
    assert seat.worker().run() == "done"
    ended = [tuple(trial.params.values()) for trial in ended_trials(seat.study)]
    assert len(ended) == len(set(ended)) == 4
    assert seat.states().count("WAITING") == 0


def test_a_lost_trial_that_is_queued_again_while_another_asks_is_given_up(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    seat.runner.suggest(seat.asked())
    requeue_lost(seat.study, seat.storage)
    (failed,) = seat.study.get_trials(states=(TrialState.FAIL,))
    real = Worker._place

    def then_queued(worker: Worker) -> Any:
        place = real(worker)
        if len(ended_trials(worker.study)) == 2 and len(seat.states()) < 5:
            seat.storage.requeue(seat.study, failed)
        return place

    monkeypatch.setattr(Worker, "_place", then_queued)
    assert seat.worker().run() == "done"
    ended = [tuple(trial.params.values()) for trial in ended_trials(seat.study)]
    assert len(ended) == len(set(ended)) == 4


@pytest.mark.parametrize("is_reporting", [False, True])
def test_a_trial_that_ended_elsewhere_while_this_worker_was_silent_counts_once(
    seat: Seat, *, is_reporting: bool
) -> None:
    class Silent(QuickRunner):
        def train(self, trial: Trial, params: Mapping[str, Any]) -> float:
            if trial.number == 0:
                seat.storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
                if is_reporting:
                    trial.report(1.0, step=1)
            return super().train(trial, params)

    seat.runner = Silent(seat.search, seat.folder / "log.jsonl", seconds=0)
    assert seat.worker().run() == "done"
    assert len(ended_trials(seat.study)) == 4
    assert len({tuple(trial.params.values()) for trial in ended_trials(seat.study)}) == 4


def test_a_grid_is_tried_once_each_in_any_number_of_sittings(tmp_path: Path) -> None:
    text = """
sampler: grid
space:
  optim.lr: {float: [0.01, 0.04], step: 0.01}
  reweight: {choice: [none, inverse]}
"""
    seat = Seat(tmp_path, text)
    assert seat.worker().run() == "done"
    params = {tuple(trial.params.values()) for trial in ended_trials(seat.study)}
    assert len(ended_trials(seat.study)) == len(params) == 8
    assert Seat(tmp_path, text).worker().run() == "done"
    assert len(ended_trials(seat.study)) == 8
    seat.storage.engine.dispose()


@pytest.mark.parametrize("name", ["tpe", "gp", "random"])
def test_every_sampler_draws_what_it_drew_before_at_the_same_seed(
    tmp_path: Path, name: str
) -> None:
    def drawn(folder: str, seed: int) -> list[dict[str, Any]]:
        (tmp_path / folder).mkdir()
        text = TEXT.replace("sampler: random", f"sampler: {{name: {name}, seed: {seed}}}")
        seat = Seat(tmp_path / folder, text)
        seat.worker().run()
        seat.storage.engine.dispose()
        return [trial.params for trial in ended_trials(seat.study)]

    first = drawn("a", 0)
    assert drawn("b", 0) == first
    assert drawn("c", 1)[2:] != first[2:]


def test_a_fault_of_the_training_code_is_not_taken_for_a_trial_that_ended_elsewhere(
    seat: Seat,
) -> None:
    class Faulty(QuickRunner):
        def train(self, trial: Trial, params: Mapping[str, Any]) -> float:
            raise ValueError("a fault")

    seat.runner = Faulty(seat.search, seat.folder / "log.jsonl", seconds=0)
    with pytest.raises(ValueError, match="a fault"):
        seat.worker().run()


# --- owners ---------------------------------------------------------------------------------------


def trial_of(owned_by: dict[str, Any] | None, *, number: int = 3) -> Any:
    attributes = {} if owned_by is None else {OWNER: owned_by}
    trial = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=attributes)
    trial.number = number
    return trial


def test_a_trial_of_this_process_is_not_lost() -> None:
    assert not is_lost(trial_of(this_process(3)))


def test_a_trial_without_an_owner_or_with_that_of_its_first_try_is_lost() -> None:
    assert is_lost(trial_of(None))
    assert is_lost(trial_of(this_process(2)))


def test_a_trial_of_another_machine_is_left_to_its_heartbeat() -> None:
    assert not is_lost(trial_of({**this_process(3), "machine": "elsewhere", "process": "1-1"}))


def test_a_trial_of_a_process_that_has_ended_is_lost_even_before_its_parent_asks() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owned = {**this_process(3), "process": trial_owner._identity(child.pid)}
    assert not is_lost(trial_of(owned))
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie, still in the list
    assert is_lost(trial_of(owned))
    child.communicate()
    assert is_lost(trial_of(owned))


def test_a_process_id_that_is_used_again_is_another_process() -> None:
    assert is_lost(trial_of({**this_process(3), "process": f"{os.getpid()}-1"}))


# --- a storage that is gone -----------------------------------------------------------------------


def test_calls_to_a_storage_that_is_gone_are_tried_again_and_it_is_said_once(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    failures = iter([True, True, False])
    monkeypatch.setattr("engine.tuning.study.storage.time.sleep", lambda _: None)
    monkeypatch.setattr(seat.storage, "say", said.append)

    def action() -> None:
        if next(failures):
            raise StorageInternalError("gone")

    seat.storage.patiently(action)
    assert len(said) == 2
    assert said[0].endswith("gone; trying again")
    assert said[1].endswith("is back")


def test_a_storage_that_stays_away_is_given_up_in_one_line(
    seat: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.tuning.study.storage.time.sleep", lambda _: None)
    monkeypatch.setattr(seat.storage, "say", lambda _: None)
    monkeypatch.setattr(seat.storage, "patience", 0)

    def action() -> None:
        raise StorageInternalError("gone")

    with pytest.raises(StorageLostError, match="gone for 0 s: gone"):
        seat.storage.patiently(action)


def test_a_study_in_a_file_is_found_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Address("sqlite:///~/s.db").url.database == f"{tmp_path}/s.db"
    assert Address("sqlite:///s.db").url.database == "s.db"
    with pytest.raises(ConfigError) as caught:
        Address("sqlite:///~nobody-of-this-name/s.db")
    (line,) = caught.value.mistakes
    assert line.startswith("storage=sqlite:///~nobody-of-this-name/s.db: ~nobody-of-this-name has")


def test_an_address_never_shows_its_password() -> None:
    address = Address("postgresql://me:s3cret%2Fp%40ss@host/db")
    shown = [str(address), repr(address), address.redacted("no s3cret/p@ss, no s3cret%2Fp%40ss")]
    assert not any("s3cret" in text for text in shown)
    assert "s3cret" in address.secret
