"""A finished run keeps the weights of its selection rules alone, and whatever needs them works."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.training import checkpoint
from engine.training.checkpointer import Checkpointer
from engine.training.journal import Journal
from engine.training.trained import load_run, load_weights
from tests._runs import assert_same_run, folder_of, small_run, summary_of

WHOLE = "track.keep_checkpoints=true"
EACH = "runtime.checkpoint_epoch_seconds=0"
WORDS = ("model.ema=0.9", "schedule.epochs=2", "evaluate.rules=[last, val, val_nll]")
RULES = ("last", "val", "val_nll")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run that keeps its checkpoints whole."""
    root = tmp_path_factory.mktemp("whole")
    small_run(root, *WORDS, WHOLE, EACH)
    return folder_of(root, *WORDS)


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run without."""
    root = tmp_path_factory.mktemp("slim")
    small_run(root, *WORDS)
    return folder_of(root, *WORDS)


def names(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def assert_same_weights(first: Path, second: Path) -> None:
    for rule in RULES:
        a, b = load_weights(first, rule=rule), load_weights(second, rule=rule)
        assert a.epoch == b.epoch
        assert a.state.keys() == b.state.keys()
        assert all(torch.equal(a.state[key], b.state[key]) for key in a.state)


def test_a_finished_run_keeps_one_checkpoint_of_weights_alone(slim: Path, whole: Path) -> None:
    assert names(slim) == {"last.pt"}
    assert names(whole) == {"last.pt", "previous.pt"}
    state = torch.load(slim / "checkpoints" / "last.pt", weights_only=True)
    assert (state["optimizer"], state["scaler"], state["model"]) == (None, None, None)
    full = torch.load(whole / "checkpoints" / "last.pt", weights_only=True)
    assert full["optimizer"]["state"]
    assert slim.name == whole.name  # a key that changes no number is no part of the identity


def test_every_rule_has_the_weights_it_had(slim: Path, whole: Path) -> None:
    assert_same_weights(slim, whole)
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    for rule in RULES:
        expected = load_run(whole, rule=rule).predict(images)
        assert torch.equal(load_run(slim, rule=rule).predict(images), expected)


def test_weights_that_several_rules_chose_are_written_once(tmp_path: Path) -> None:
    weights = {"w": torch.randn(100_000)}
    best = {rule: {"epoch": 1, "value": 0.5, "state": {"w": weights["w"].clone()}} for rule in "ab"}
    state = {"model": weights, "ema": None, "optimizer": {}, "scaler": {}, "best": best, "epoch": 1}
    checkpoint.save(tmp_path, state)
    before = (tmp_path / "last.pt").stat().st_size
    checkpoint.keep_weights(tmp_path, epoch=1)
    assert (tmp_path / "last.pt").stat().st_size < before / 2
    found = checkpoint.load_latest(tmp_path).state
    assert found is not None
    assert all(torch.equal(found["best"][rule]["state"]["w"], weights["w"]) for rule in "ab")


# --- a crash at any moment ------------------------------------------------------------------------

CALLS: tuple[tuple[Any, str], ...] = (
    (os, "fsync"),
    (Path, "replace"),
    (Path, "unlink"),
    (torch, "save"),
)


class Crash(BaseException):
    """As a kill: nothing may catch it."""


def crash_before_call(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], int]:
    """Crash before one of the calls that change the disk; what is returned tells how many came."""
    count = 0

    def spy(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                raise Crash
            return call(*args, **options)

        return counted

    for owner, name in CALLS:
        monkeypatch.setattr(owner, name, spy(getattr(owner, name)))
    return lambda: count


@pytest.mark.parametrize("crash_at", range(1, 7))
def test_a_crash_at_any_moment_loses_no_weights_and_the_run_is_finished_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path, crash_at: int
) -> None:
    folder = folder_of(tmp_path, *WORDS)
    shutil.copytree(whole, folder)
    (folder / "summary.json").unlink()  # it comes last
    with monkeypatch.context() as patch:
        count = crash_before_call(patch, crash_at)
        try:
            checkpoint.keep_weights(folder / "checkpoints", epoch=2)
        except Crash:
            assert count() == crash_at
        else:
            assert (crash_at, count()) == (6, 5)  # unlink, save, fsync, replace, replace
    assert_same_weights(folder, whole)
    small_run(tmp_path, *WORDS)
    assert names(folder) == {"last.pt"}
    assert_same_weights(folder, whole)
    assert summary_of(folder) == summary_of(whole)


@pytest.mark.parametrize("crash_at", [1, 3, 4, 5, 6])
def test_a_crash_while_the_last_checkpoint_is_written_is_made_up_for_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slim: Path, crash_at: int
) -> None:
    """Before it is written, before each of its renames, and after them, with predictions."""
    after_epoch = Checkpointer.after_epoch
    with monkeypatch.context() as patch:

        def spied(checkpoints: Checkpointer, *, is_last: bool) -> None:
            if is_last:
                crash_before_call(patch, crash_at)
            after_epoch(checkpoints, is_last=is_last)

        patch.setattr(Checkpointer, "after_epoch", spied)
        with pytest.raises(Crash):
            small_run(tmp_path, *WORDS, EACH)
    folder = folder_of(tmp_path, *WORDS)
    expected = {1: "last", 3: "last", 4: "last next", 5: "next previous", 6: "last previous"}
    found = {path.stem for path in (folder / "checkpoints").glob("*.pt")}
    assert found == set(expected[crash_at].split())
    small_run(tmp_path, *WORDS, EACH)
    assert_same_run(folder, slim)
    assert_same_weights(folder, slim)
    assert names(folder) == {"last.pt"}


def test_a_run_killed_before_its_summary_is_finished_from_the_weights_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slim: Path
) -> None:
    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "finish", crash)
        with pytest.raises(Crash):
            small_run(tmp_path, *WORDS)
    folder = folder_of(tmp_path, *WORDS)
    assert not (folder / "summary.json").exists()
    small_run(tmp_path, *WORDS)
    assert_same_run(folder, slim)
    assert names(folder) == {"last.pt"}


def test_a_damaged_newest_checkpoint_keeps_the_one_before_it(tmp_path: Path, whole: Path) -> None:
    """Its weights are of another epoch, and must not be taken for the final ones."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "checkpoints" / "last.pt").write_bytes(b"damaged")
    before = (folder / "checkpoints" / "previous.pt").read_bytes()
    checkpoint.keep_weights(folder / "checkpoints", epoch=2)
    assert (folder / "checkpoints" / "previous.pt").read_bytes() == before


# --- what needs the weights -----------------------------------------------------------------------


def test_a_run_that_left_test_alone_is_slim_and_can_be_finished_with_test(
    tmp_path: Path, slim: Path
) -> None:
    small_run(tmp_path, *WORDS, test=False)
    folder = folder_of(tmp_path, *WORDS)
    assert names(folder) == {"last.pt"}
    small_run(tmp_path, *WORDS)
    assert_same_run(folder, slim)


def test_a_finished_run_is_run_again_from_its_beginning(tmp_path: Path, slim: Path) -> None:
    small_run(tmp_path, *WORDS)
    small_run(tmp_path, *WORDS, fresh=True)
    folder = folder_of(tmp_path, *WORDS)
    assert_same_run(folder, slim)
    assert names(folder.with_name(f"{folder.name}.old-1")) == names(folder) == {"last.pt"}


@pytest.mark.parametrize("words", [("loss=distillation", "teacher={}"), ("model.init_from={}",)])
def test_weights_alone_start_and_teach_as_whole_checkpoints_do(
    tmp_path: Path, slim: Path, whole: Path, words: tuple[str, ...]
) -> None:
    summaries = []
    for number, folder in enumerate((slim, whole)):
        root, given = tmp_path / str(number), [word.format(folder) for word in words]
        small_run(root, *given, "schedule.epochs=1")
        summaries.append(summary_of(folder_of(root, *given, "schedule.epochs=1")))
    assert summaries[0] == summaries[1]
