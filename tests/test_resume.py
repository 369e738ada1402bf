"""A run that was killed, stopped or damaged ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

import train
from engine.config.components import ROOT
from engine.config.mistakes import ConfigError
from engine.report.terminal import Terminal
from engine.training import checkpoint, checkpointer
from engine.training.checkpointer import Checkpointer, Progress
from engine.training.divergence import NonFiniteWeightsError
from engine.training.epoch_totals import EpochTotals
from engine.training.train_loop import Trainer
from tests._runs import (
    assert_same_run,
    folder_of,
    rows_of,
    small_config,
    small_run,
    small_words,
    summary_of,
)

Start = Callable[..., subprocess.Popen[str]]
LONG = (
    "data.num_train_per_class=80",
    "schedule.epochs=5",
    "loss=softmax_focal",
    "reweight=inverse",
    "reweight.start=0.5",
    "sampler=progressive",
    "mixup.mixup=0.2",
    "model.ema=0.9",
    "data.augment.crop=1",
    "track.keep_checkpoints=true",
)
EACH, RARELY = (f"runtime.checkpoint_epoch_seconds={seconds}" for seconds in (0, 600))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("uninterrupted")
    small_run(root, *LONG)
    return folder_of(root, *LONG)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``python train.py`` in a process of its own; none outlives the test."""
    with contextlib.ExitStack() as stack:

        def start_one(root: Path, *words: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "train.py", *small_words(root, *words)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start_one


def wait_for_epoch(process: subprocess.Popen[str], epoch: int | None = None) -> None:
    """Return as soon as the process has printed the line of that epoch, or of any."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("epoch " if epoch is None else f"epoch {epoch}/"):
            return
    pytest.fail("".join(seen))


def test_a_run_killed_twice_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, uninterrupted: Path, start: Start
) -> None:
    """The second time, the epochs since the checkpoint are in the log and made again."""
    folder = folder_of(tmp_path, *LONG)
    for when, epoch in ((EACH, 2), (RARELY, None)):
        process = start(tmp_path, *LONG, when)
        wait_for_epoch(process, epoch)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        assert not (folder / "summary.json").exists()
    logged = len(rows_of(folder))
    small_run(tmp_path, *LONG)
    assert_same_run(folder, uninterrupted)
    environment = json.loads((folder / "environment.json").read_text())
    first, last = (segment["from_epoch"] for segment in environment["segments"])
    (lost,) = (segment["from_epoch"] for segment in environment["lost_segments"])
    assert first == 0 < lost == last < logged


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_checkpoints_inside_the_epoch_and_the_run_goes_on_from_there(
    tmp_path: Path, uninterrupted: Path, start: Start, number: signal.Signals, code: int
) -> None:
    folder = folder_of(tmp_path, *LONG)
    process = start(tmp_path, *LONG, RARELY)
    wait_for_epoch(process, 1)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == code, output
    assert "run the same command to resume" in output
    small_run(tmp_path, *LONG)
    assert_same_run(folder, uninterrupted)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["segments"][1]["from_epoch"] > 0


def test_a_fresh_run_that_was_stopped_is_not_to_be_begun_again(
    tmp_path: Path, start: Start
) -> None:
    process = start(tmp_path, *LONG, RARELY, "--fresh")
    wait_for_epoch(process, 1)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert "run the same command to resume, without --fresh, which would begin again" in output


def test_a_checkpoint_by_the_clock_is_inside_the_epoch_and_resumes_at_its_step(
    tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third checkpoint of an epoch is followed by a crash."""
    saved: list[dict[str, int]] = []
    save = checkpoint.save

    def crashing_save(folder: Path, state: dict) -> None:  # type: ignore[type-arg]
        save(folder, state)
        saved.append({"epoch": state["epoch"], "step": state["totals"]["steps"]})
        if len(saved) == 10:
            raise ZeroDivisionError

    words = (*LONG, "runtime.checkpoint_seconds=1e-9")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", crashing_save)
        with pytest.raises(ZeroDivisionError):
            small_run(tmp_path, *words)
    assert saved[-1]["step"] > 0
    small_run(tmp_path, *words)
    folder = folder_of(tmp_path, *words)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["segments"][1]["from_step"] == saved[-1]["step"]
    assert environment["segments"][1]["from_epoch"] == saved[-1]["epoch"]
    assert_same_run(folder, uninterrupted)


def test_lines_of_epochs_after_the_checkpoint_are_cut_and_written_again(
    tmp_path: Path, uninterrupted: Path, start: Start
) -> None:
    """As after a crash between the line of an epoch and its checkpoint."""
    folder = folder_of(tmp_path, *LONG)
    process = start(tmp_path, *LONG, EACH)
    wait_for_epoch(process, 3)
    process.kill()
    process.communicate()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 99, "train/loss": 0.0}\n{"epoch": 100, "trai')
    small_run(tmp_path, *LONG)
    assert rows_of(folder) == rows_of(uninterrupted)


# --- by the clock, after epochs -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "epochs"),
    [(EACH, [1, 2, 3]), (RARELY, [3]), ("runtime.checkpoint_epoch_seconds=15", [2, 3])],
)
def test_a_checkpoint_is_made_after_an_epoch_when_it_is_time_and_after_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, epochs: list[int]
) -> None:
    """Each epoch takes ten seconds of this clock."""
    saved: list[int] = []
    clock = [0.0]
    save, after_epoch = checkpoint.save, Checkpointer.after_epoch

    def noted(folder: Path, state: dict) -> None:  # type: ignore[type-arg]
        saved.append(state["epoch"])
        save(folder, state)

    def later(checkpoints: Checkpointer, *, is_last: bool) -> None:
        clock[0] += 10
        after_epoch(checkpoints, is_last=is_last)

    monkeypatch.setattr(checkpoint, "save", noted)
    monkeypatch.setattr(Checkpointer, "after_epoch", later)
    monkeypatch.setattr(checkpointer, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    small_run(tmp_path, word)
    assert saved == epochs


def test_patience_that_ends_training_leaves_a_checkpoint(tmp_path: Path) -> None:
    words = ("schedule.patience=1", "schedule.epochs=30", "optim.lr=1e-9")
    small_run(tmp_path, *words, RARELY)
    folder = folder_of(tmp_path, *words)
    state = checkpoint.load_latest(folder / "checkpoints").state
    assert state is not None
    assert state["epoch"] == len(rows_of(folder)) < 30


@pytest.mark.parametrize("word", [EACH, RARELY])
def test_a_run_that_diverges_names_a_checkpoint_only_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    def check(trainer: Trainer) -> None:
        if trainer._epoch == 2:
            raise NonFiniteWeightsError("epoch 3")

    monkeypatch.setattr(Trainer, "check_weights", check)
    with pytest.raises(NonFiniteWeightsError) as caught:
        small_run(tmp_path, word)
    path = folder_of(tmp_path) / "checkpoints" / "last.pt"
    if word == RARELY:
        assert not path.exists()
        assert caught.value.__notes__[0] == "no checkpoint was made"
    else:
        assert torch.load(path, weights_only=True)["epoch"] == 2
        assert caught.value.__notes__[0] == f"last good checkpoint: {path}"


def test_what_the_caller_raises_between_epochs_ends_the_run_after_a_checkpoint(
    tmp_path: Path, uninterrupted: Path
) -> None:
    folder = stopped_run(tmp_path, *LONG, RARELY)
    state = checkpoint.load_latest(folder / "checkpoints").state
    assert state is not None
    assert state["epoch"] == 2
    small_run(tmp_path, *LONG)
    assert_same_run(folder, uninterrupted)


@pytest.mark.parametrize(
    ("done", "steps", "is_over", "place"),
    [
        (0, 3, False, "epoch 1, step 4"),
        (1, 0, False, "epoch 2, step 1"),
        (1, 9, False, "epoch 2, after its last step"),
        (2, 0, True, "the final predictions; training is over"),
    ],
)
def test_where_a_run_goes_on_is_a_step_that_there_is(
    done: int, steps: int, place: str, *, is_over: bool
) -> None:
    progress = Progress(done, EpochTotals(steps=steps))
    assert progress.place(steps=9, is_over=is_over) == place


# --- damaged and foreign files --------------------------------------------------------------------


def stopped_run(root: Path, *words: str) -> Path:
    """A run that stopped after its second epoch; without words it has a checkpoint of each."""

    class Stop(Exception):  # noqa: N818 - nothing went wrong
        pass

    def report(epoch: int, row: object) -> None:
        if epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        small_run(root, *(words or [EACH]), report=report)
    return folder_of(root, *words)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_a_pickle_that_runs_code(path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(path.parent / "exploded"),))

    torch.save({"format": 1, "model": Bomb()}, path)


def replace_by_a_foreign_file(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


def replace_by_a_plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"format": 1}))


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_a_bit,
        replace_by_a_pickle_that_runs_code,
        replace_by_a_foreign_file,
        replace_by_a_plain_pickle,
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(
    tmp_path: Path, damage: object
) -> None:
    small_run(tmp_path / "whole")
    folder = stopped_run(tmp_path / "damaged")
    last = folder / "checkpoints" / "last.pt"
    damage(last)  # type: ignore[operator]
    found = checkpoint.load_latest(folder / "checkpoints")
    assert len(found.problems) == 1
    assert found.problems[0].startswith(str(last))
    assert found.state is not None
    assert found.state["epoch"] == 1
    small_run(tmp_path / "damaged")
    assert_same_run(folder, folder_of(tmp_path / "whole"))
    assert not (folder / "checkpoints" / "exploded").exists()


def test_without_a_whole_checkpoint_the_run_begins_again(tmp_path: Path) -> None:
    small_run(tmp_path / "whole")
    folder = stopped_run(tmp_path / "damaged")
    for path in (folder / "checkpoints").glob("*.pt"):
        truncate(path)
    small_run(tmp_path / "damaged")
    assert_same_run(folder, folder_of(tmp_path / "whole"))


def test_a_crash_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    checkpoint.save(folder, {"epoch": 1})
    checkpoint.save(folder, {"epoch": 2})
    (folder / "last.pt").rename(folder / "next.pt")
    found = checkpoint.load_latest(folder)
    assert found.state is not None
    assert found.state["epoch"] == 2


def test_a_half_written_checkpoint_leaves_the_last_one_alone(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    checkpoint.save(folder, {"epoch": 1})
    shutil.copy(folder / "last.pt", folder / ".next.pt.tmp")
    truncate(folder / ".next.pt.tmp")
    found = checkpoint.load_latest(folder)
    assert found.state is not None
    assert found.state["epoch"] == 1
    assert found.problems == ()


def test_a_damaged_summary_is_named(tmp_path: Path) -> None:
    small_run(tmp_path, "schedule.epochs=1")
    path = folder_of(tmp_path, "schedule.epochs=1") / "summary.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"summary\.json: not valid JSON"):
        small_run(tmp_path, "schedule.epochs=1")
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"summary\.json: not a summary"):
        small_run(tmp_path, "schedule.epochs=1")


def test_a_change_of_threads_between_segments_is_recorded_and_told(tmp_path: Path) -> None:
    folder = stopped_run(tmp_path)
    small_run(tmp_path, "runtime.threads=2")
    threads = [
        s["threads"] for s in json.loads((folder / "environment.json").read_text())["segments"]
    ]
    assert threads == [1, 2]
    assert "threads changed during the run: 1 -> 2" in summary_of(folder)["notes"]


def test_threads_of_a_run_killed_before_its_first_checkpoint_are_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "_catch_up", lambda _self: None)  # as nothing does on kill -9
        folder = stopped_run(tmp_path, RARELY)
    assert len(rows_of(folder)) == 2
    path = folder / "environment.json"
    path.write_text(path.read_text().replace('"threads": 1', '"threads": 2'))
    out = io.StringIO()
    train.run(small_config(tmp_path, RARELY), screen=Terminal(Console(file=out, width=200)))
    assert "threads was" not in out.getvalue()
    assert not [note for note in summary_of(folder)["notes"] if "threads" in note]
    environment = json.loads(path.read_text())
    assert [s["threads"] for s in environment["segments"]] == [1]
    assert [s["threads"] for s in environment["lost_segments"]] == [2]


def test_a_run_folder_older_than_a_recorded_key_resumes_and_says_so(tmp_path: Path) -> None:
    folder = stopped_run(tmp_path)
    path = folder / "environment.json"
    environment = json.loads(path.read_text())
    del environment["segments"][0]["processes"]
    path.write_text(json.dumps(environment))
    out = io.StringIO()
    train.run(small_config(tmp_path), screen=Terminal(Console(file=out, width=200)))
    assert "note: processes was not recorded and is 1 from here on" in out.getvalue()
    assert "processes changed during the run: not recorded -> 1" in summary_of(folder)["notes"]
