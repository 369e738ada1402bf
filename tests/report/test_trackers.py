"""Trackers: one file each, several at once, and nothing that one of them does reaches the run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import train
from engine.config import components
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.config.schema import TRACKERS
from engine.report import tracking
from engine.report.tracking import Closing, Tracker, Trackers, _guard, logged_again, run_name
from tests._runs import assert_same_run, folder_of, quiet_screen, small_config, small_run

LEDGER = '''
"""A ledger."""

import json
from pathlib import Path

from engine.report.tracking import Tracker


class Ledger(Tracker):
    """A ledger of every call, one line each.

    Args:
        file: where it is written, in the run folder
    """

    def __init__(self, run, *, file: str = "ledger.jsonl") -> None:
        self.path = run.folder / file
        self.write("new", run.name)

    def write(self, *entry) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\\n")

    def start(self):
        self.write("start")

    def log(self, values, *, step):
        self.write("log", step, values["train/loss"])

    def close(self, closing):
        self.write("close", closing.values.get("headline"), sorted(closing.images))

    def finish(self, *, failed):
        self.write("finish", failed)
'''
RUN = """
import sys
import train
assert train.main(sys.argv[1:]) == 0
"""
SWEEP = """
import sys
import sweep
assert sweep.main(sys.argv[1:]) == 0
"""
SEARCH = """
budget: {trials: 1, epochs: 1}
sampler: random
space:
  optim.lr: {float: [0.01, 0.1]}
confirm: {top: 0}
"""


# --- one file -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a run needs, with one more tracker."""
    copy = tmp_path_factory.mktemp("repository")
    for package in ("engine", "data", "losses", "models"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(components.ROOT / package, copy / package, ignore=ignored)
    for file in components.ROOT.glob("*.py"):
        shutil.copy(file, copy)
    (copy / "engine" / "report" / "tracking" / "ledger.py").write_text(LEDGER, encoding="utf-8")
    return copy


def python(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=repository,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def entries(path: Path) -> list[list[Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_new_file_is_a_tracker_with_a_key_in_yaml_and_a_search_uses_it_too(
    repository: Path, tmp_path: Path
) -> None:
    base, search = tmp_path / "base.yaml", tmp_path / "search.yaml"
    base.write_text(
        "data: {name: synthetic, num_classes: 4, num_train_per_class: 40, num_test_per_class: 10,\n"
        "  imbalance: {factor: 8}, validation: {per_class: 6}}\n"
        "schedule: {epochs: 2}\nruntime: {threads: 1}\n"
        f"track: {{to: [ledger], ledger_file: book.jsonl, root: {tmp_path}/runs, figures: false}}\n"
    )
    search.write_text(SEARCH)
    done = python(repository, "-c", RUN, str(base))
    assert done.returncode == 0, done.stderr
    (book,) = (tmp_path / "runs" / "synthetic").glob("*/book.jsonl")
    rows = [json.loads(line) for line in (book.parent / "metrics.jsonl").read_text().splitlines()]
    assert entries(book) == [
        ["new", "synthetic-cross_entropy-seed0"],
        ["start"],
        ["log", 1, rows[0]["train/loss"]],
        ["log", 2, rows[1]["train/loss"]],
        ["close", "val", []],
        ["finish", False],
    ]
    done = python(repository, "-c", SWEEP, str(base), "--search", str(search), "--study", "study")
    assert done.returncode == 0, done.stderr
    study = entries(tmp_path / "runs" / "study" / "book.jsonl")
    assert [entry[0] for entry in study] == ["new", "start", "close", "finish"]
    assert study[0] == ["new", "study-study"]
    assert any(name.startswith("figures/") for name in study[2][2])
    (trial,) = (tmp_path / "runs" / "study" / "trials").glob("*/book.jsonl")
    assert [entry[0] for entry in entries(trial)] == ["new", "start", "log", "close", "finish"]


def test_a_new_tracker_is_in_the_help_with_its_keys(repository: Path) -> None:
    text = " ".join(python(repository, "train.py", "--help", "track").stdout.split())
    assert (
        f"(a list, each one of {' | '.join(sorted([*components.names(TRACKERS), 'ledger']))})"
        in text
    )
    assert "track.to=ledger: A ledger of every call, one line each." in text
    assert "track.ledger_file=ledger.jsonl where it is written, in the run folder (text)" in text


# --- keys -----------------------------------------------------------------------------------------


def mistakes_of(*words: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(overrides=words)
    return caught.value.mistakes


def test_a_typo_in_a_trackers_name_names_the_nearest() -> None:
    (line,) = mistakes_of("track.to=[wandb, mlfow]")
    assert f"each one of {' | '.join(components.names(TRACKERS))} (did you mean mlflow?)" in line


def test_a_tracker_that_is_no_file_yet_says_where_to_add_it() -> None:
    (line,) = mistakes_of("track.to=[wandb, ledger]")
    known = " | ".join(components.names(TRACKERS))
    assert f"each one of {known}, or add engine/report/tracking/ledger.py (" in line


def test_a_key_of_a_tracker_that_is_not_asked_for_says_whose_it_is() -> None:
    assert mistakes_of("track.mlflow_uri=x") == (
        "track.mlflow_uri: mlflow has this key, and track.to does not name it",
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["track.to=[wandb, wandb]"], "track.to: names wandb twice"),
        (["track.to=[]", "track.group=a"], "track.group: has no effect with track.to=[]"),
        (
            ["track.to=[]", "track.wandb=online"],
            "track.wandb=online: has no effect where track.to does not name wandb",
        ),
        (
            ["track.wandb=disabled", "track.wandb_notes=a"],
            "track.wandb_notes: has no effect with track.wandb=disabled",
        ),
    ],
)
def test_a_key_without_effect_is_a_mistake(words: list[str], line: str) -> None:
    assert mistakes_of(*words) == (line,)


def test_a_group_counts_for_any_tracker() -> None:
    config = load(overrides=["track.to=[mlflow]", "track.wandb=disabled", "track.group=mine"])
    assert config.track.group == "mine"


def test_a_missing_package_is_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert train.main(["track.to=[mlflow]", f"track.root={tmp_path / 'runs'}"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "track.to: mlflow needs the package mlflow, which is not installed; "
        "pip install -r requirements-mlflow.txt -c constraints.txt"
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "digits-cross_entropy-seed0"),
        (
            ["loss=ldam", "model.head=cosine", "reweight=effective_number", "seed=3"],
            "digits-ldam-effective_number-cosine-seed3",
        ),
        (
            ["sampler=class_balanced", "mixup.cutmix=1"],
            "digits-cross_entropy-class_balanced-cutmix-seed0",
        ),
        (
            ["data=image_folder", "data.path=~/scans of 2024/"],
            "scans_of_2024-cross_entropy-seed0",
        ),
        (
            ["data=image_list", "data.root=photos", "data.train=a.txt", "data.test=b.txt"],
            "photos-cross_entropy-seed0",
        ),
    ],
)
def test_a_run_is_named_by_data_method_and_seed(words: list[str], name: str) -> None:
    assert run_name(load(overrides=words)) == name


def test_rows_of_the_last_second_and_at_least_one_are_logged_again() -> None:
    rows = [{"epoch": n, "time/epoch_seconds": 0.4} for n in range(1, 6)]
    assert [row["epoch"] for row in logged_again(rows)] == [3, 4, 5]
    slow = [{"epoch": n, "time/epoch_seconds": 30.0} for n in range(1, 6)]
    assert [row["epoch"] for row in logged_again(slow)] == [5]
    assert list(logged_again([])) == []


# --- nothing reaches the run ----------------------------------------------------------------------


class Noted(Tracker):
    """Keeps what it is sent, and breaks where it is told to."""

    def __init__(self, broken: str = "", *, how: Callable[[], object] = int) -> None:
        self.calls: list[str] = []
        self.broken, self.how = broken, how

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.broken:
            self.how()

    def environment(self) -> dict[str, str]:
        self._note("environment")
        return {"TAILFOCUS_NOTED": "yes"}

    def start(self) -> None:
        self._note("start")

    def log(self, values: object, *, step: int) -> None:
        self._note(f"log {step}")

    def close(self, closing: Closing) -> None:
        self._note("close")

    def finish(self, *, failed: bool) -> None:
        self._note("finish")

    def abandon(self) -> None:
        self._note("abandon")


CALLS = ["environment", "start", "log 1", "log 2", "log 3", "close", "finish"]


def raise_exit() -> None:
    raise SystemExit("the server said no")


def raise_error() -> None:
    raise ConnectionResetError("the line\nis cut")


def guarded(*trackers: Tracker, say: Callable[[str], None]) -> Trackers:
    found = [
        _guard.Guarded(lambda _, tracker=tracker: tracker, f"number {n}", say=say)  # type: ignore[misc]
        for n, tracker in enumerate(trackers, start=1)
    ]
    for one in found:
        one.start()
    return Trackers(found)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Tracker]:
    """Trackers that every run gets in place of those of ``track.to``."""
    trackers: list[Tracker] = []
    monkeypatch.setattr(tracking, "start", lambda track, run, *, say: guarded(*trackers, say=say))
    return trackers


def lines_of(root: Path) -> list[str]:
    """What a small run says about its trackers."""
    screen = quiet_screen()
    train.run(small_config(root), screen=screen)
    printed: str = screen.console.file.getvalue()  # type: ignore[attr-defined]
    return [line for line in printed.splitlines() if line.startswith("number")]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing follows."""
    root = tmp_path_factory.mktemp("without")
    small_run(root)
    return folder_of(root)


@pytest.mark.parametrize("how", [raise_error, raise_exit])
@pytest.mark.parametrize("call", ["environment", "start", "log 2", "close", "finish"])
def test_an_error_in_any_call_is_one_line_and_silences_no_other_tracker(
    tmp_path: Path, given: list[Tracker], without: Path, call: str, how: Callable[[], object]
) -> None:
    broken, sound = Noted(call, how=how), Noted()
    given += [broken, sound]
    (line,) = lines_of(tmp_path)
    reason = "ConnectionResetError: the line is cut"
    reason = reason if how is raise_error else "SystemExit: the server said no"
    assert line == f"number 1 is off for the rest of this run: {reason}"
    assert sound.calls == CALLS
    reached = CALLS[: CALLS.index(call) + 1]
    assert broken.calls == reached + (["abandon"] if call != "environment" else [])
    assert_same_run(folder_of(tmp_path), without)


@pytest.mark.parametrize("call", ["start", "log 2", "close", "finish"])
def test_a_call_that_never_ends_holds_the_run_up_for_a_bounded_time_and_no_other_tracker(
    tmp_path: Path,
    given: list[Tracker],
    without: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    monkeypatch.setattr(_guard, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(_guard, "FINISH_SECONDS", 0.1)
    for_ever = threading.Event()
    hanging, sound = Noted(call, how=for_ever.wait), Noted()
    given += [hanging, sound]
    *_, last = lines_of(tmp_path)
    for_ever.set()
    assert last == "number 1: what it had not taken by the end of the run is not there"
    assert sound.calls == CALLS
    assert_same_run(folder_of(tmp_path), without)


def test_waiting_ends_when_the_patience_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guard, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(_guard, "FINISH_SECONDS", 0.2)
    said: list[str] = []
    for_ever = threading.Event()
    began = time.monotonic()
    trackers = guarded(Noted("log 1", how=for_ever.wait), say=said.append)
    for step in range(1, 100):
        trackers.log({}, step=step)
    trackers.finish()
    seconds = time.monotonic() - began
    for_ever.set()
    assert 0.7 <= seconds < 3
    assert said[0] == "number 1 is slow: from here on the run does not wait for it"


def test_a_slow_tracker_gets_every_epoch_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guard, "PATIENCE_SECONDS", 0.05)
    gate = threading.Event()
    slow = Noted("log 1", how=gate.wait)
    trackers = guarded(slow, say=lambda _: None)
    for step in (1, 2, 3):
        trackers.log({}, step=step)
    assert slow.calls == ["environment", "start", "log 1"]
    gate.set()
    trackers.close(Closing())
    monkeypatch.setattr(_guard, "FINISH_SECONDS", 60.0)
    trackers.finish()
    assert slow.calls == CALLS


def test_the_environment_of_a_tracker_ends_with_it() -> None:
    trackers = guarded(Noted("log 1", how=raise_error), say=lambda _: None)
    assert os.environ["TAILFOCUS_NOTED"] == "yes"
    trackers.log({}, step=1)
    trackers.finish()
    assert "TAILFOCUS_NOTED" not in os.environ
