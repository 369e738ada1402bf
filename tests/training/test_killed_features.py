"""Runs on features that are kept, killed in the middle by real signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

import train
from engine.training import frozen_features
from engine.training.checkpointer import Checkpointer
from tests._runs import assert_same_run, folder_of, small_run, small_words

WORDS = (
    "model=cifar_resnet8",
    "model.tune=head",
    "model.ema=0.9",
    "optim.momentum=0.9",
    "sampler=class_balanced",
    "runtime.checkpoint_seconds=0.001",  # after every step
)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A run that trains the head alone, on images that nothing changes."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(timm.create_model("cifar_resnet8", in_chans=1).state_dict(), file)
    return (*WORDS, f"model.pretrained={file}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, words: tuple[str, ...]) -> Path:
    """The folder of a run that nobody stopped, with features of its own."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_ROOT", str(root / "data"))
        small_run(root, *words)
    return folder_of(root, *words)


@pytest.fixture(autouse=True)
def _data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))


def command(root: Path, *words: str, before: Callable[[], None]) -> int:
    """Give the command in a process of its own; return its exit code, minus the signal's number.

    It is a fork of this one, which need not import everything again.

    Args:
        root: for the runs.
        words: of the command.
        before: done in the process first.
    """
    if (pid := os.fork()) == 0:
        code = 70
        try:
            before()
            code = train.main(small_words(root, *words))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "data" / "cache" / "features").iterdir())


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_a_run_killed_in_an_epoch_ends_as_one_that_was_not(
    whole: Path, words: tuple[str, ...], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    poll = Checkpointer.poll

    def send(checkpoints: Checkpointer) -> None:
        totals = checkpoints.progress.totals
        if checkpoints.progress.epoch == 1 and totals.steps == 3:
            os.kill(os.getpid(), number)
        poll(checkpoints)

    def before() -> None:
        Checkpointer.poll = send  # type: ignore[method-assign]

    assert command(tmp_path, *words, before=before) == code
    run = folder_of(tmp_path, *words)
    assert not (run / "summary.json").exists()
    files = {file: file.stat().st_mtime_ns for file in kept(tmp_path)}
    small_run(tmp_path, *words)
    assert_same_run(run, whole)
    assert files.items() <= {file: file.stat().st_mtime_ns for file in kept(tmp_path)}.items()


def test_features_that_were_half_written_when_the_run_was_killed_are_not_used(
    whole: Path, words: tuple[str, ...], tmp_path: Path
) -> None:
    def before() -> None:
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]

    assert command(tmp_path, *words, before=before) == -signal.SIGKILL
    (half,) = kept(tmp_path)
    assert half.suffix == ".tmp"
    small_run(tmp_path, *words)
    assert_same_run(folder_of(tmp_path, *words), whole)


def test_what_a_killed_run_left_of_features_is_removed_once_nobody_writes_it(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "cache" / "features"
    folder.mkdir(parents=True)
    half, whole, fresh = (
        folder / f"{dots}0123456789abcdef01234567.{end}"
        for dots, end in (("..", "1.npy.tmp"), (".", "1.npy"), ("..", "2.npy.tmp"))
    )
    for file in (half, whole, fresh):
        file.write_bytes(b"half")
    stays = folder / "..00.npy.tmp"  # as another user's file would
    stays.mkdir()
    an_hour_ago = half.stat().st_mtime - frozen_features.ABANDONED_SECONDS - 1
    for path in (half, whole, stays):
        os.utime(path, (an_hour_ago, an_hour_ago))
    small_run(tmp_path, *words, "schedule.epochs=1")
    assert not half.exists() and not whole.exists()
    assert fresh.exists() and stays.exists()
    assert any(not file.name.startswith(".") for file in kept(tmp_path))
