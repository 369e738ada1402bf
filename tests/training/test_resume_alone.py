"""A run that has begun goes on from its own checkpoint, whatever became of what it began with."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import timm
import torch

import train
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.training import checkpoint, head_start
from engine.training.journal import Journal
from engine.training.named_precision import settled
from engine.training.run_folder import RunFolder
from engine.training.setup import Setup
from tests._runs import assert_same_run, folder_of, small_run, small_words

WORDS = (
    "model=cifar_resnet8",
    "data.num_train_per_class=24",
    "data.validation.per_class=4",
    "schedule.epochs=3",
)


class Stop(Exception):  # noqa: N818 - nothing went wrong
    """Ends a run after an epoch."""


def stop(epoch: int, row: object) -> None:
    raise Stop


def go_on(root: Path, *words: str) -> int:
    """Give the command again."""
    return train.main(small_words(root, *words))


def go_on_for_an_epoch(root: Path, *words: str) -> None:
    with pytest.raises(Stop):
        small_run(root, *words, report=stop)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of two finished runs; nothing changes them."""
    root = tmp_path_factory.mktemp("originals")
    found = []
    for seed in (0, 1):
        words = (*WORDS[:-1], "schedule.epochs=1", f"seed={seed}")
        small_run(root, *words)
        found.append(folder_of(root, *words))
    return found


def copies(originals: Sequence[Path], root: Path) -> list[Path]:
    return [Path(shutil.copytree(run, root / run.name)) for run in originals]


def change(run: Path) -> None:
    """Let a run have other weights."""
    state = checkpoint.load_latest(run / "checkpoints").state
    assert state is not None
    for kept in state["best"].values():
        kept["state"]["backbone.conv1.weight"] += 1
    checkpoint.save(run / "checkpoints", state)


@pytest.mark.parametrize("number", [1, 2])
def test_runs_that_it_started_from_may_be_changed_and_deleted(
    originals: list[Path], tmp_path: Path, number: int
) -> None:
    runs = copies(originals[:number], tmp_path / "from")
    named = str(runs[0]) if number == 1 else f"[{runs[0]}, {runs[1]}]"
    words = (*WORDS, f"model.init_from={named}")
    small_run(tmp_path / "whole", *words)
    go_on_for_an_epoch(tmp_path / "runs", *words)
    folders = [folder_of(tmp_path / name, *words) for name in ("whole", "runs")]
    for run in runs:
        change(run)
    go_on_for_an_epoch(tmp_path / "runs", *words)
    for run in runs:
        shutil.rmtree(run)
    assert go_on(tmp_path / "runs", *words) == 0
    assert_same_run(*folders)
    assert go_on(tmp_path / "runs", *words) == 0  # finished: its table


def test_the_first_run_of_three_may_be_deleted_once_the_second_is_finished(
    originals: list[Path], tmp_path: Path
) -> None:
    (first,) = copies(originals[:1], tmp_path / "first")
    short = (*WORDS[:-1], "schedule.epochs=1", f"model.init_from={first}")
    small_run(tmp_path / "second", *short)
    words = (*WORDS, f"model.init_from={folder_of(tmp_path / 'second', *short)}")
    small_run(tmp_path / "whole", *words)
    go_on_for_an_epoch(tmp_path / "runs", *words)
    shutil.rmtree(first)
    assert go_on(tmp_path / "runs", *words) == 0
    assert_same_run(*(folder_of(tmp_path / name, *words) for name in ("whole", "runs")))
    assert go_on(tmp_path / "new", *words, "seed=1") == 0


def test_a_run_that_has_not_begun_is_refused_where_its_start_is_gone(
    originals: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / originals[0].name
    words = (*WORDS, f"model.init_from={gone}")
    assert go_on(tmp_path / "runs", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"model.init_from={gone}: not a run folder: ")
    assert not (tmp_path / "runs").exists()


def test_a_run_that_has_begun_is_found_where_its_precision_is_chosen_by_the_machine(
    originals: list[Path], tmp_path: Path
) -> None:
    (start,) = copies(originals[:1], tmp_path / "from")
    words = small_words(
        tmp_path / "runs", *WORDS, f"model.init_from={start}", "runtime.precision=auto"
    )
    own = RunFolder.of(settled(load(overrides=words)))
    shutil.rmtree(start)
    assert train.main([*words, "--print-config"]) == 2
    own.checkpoints.mkdir(parents=True)
    (own.checkpoints / "last.pt").touch()
    assert train.main([*words, "--print-config"]) == 0


def test_a_run_that_is_set_aside_while_it_is_read_is_not_begun_anew_from_its_weights(
    originals: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*WORDS, f"model.init_from={originals[0]}")
    go_on_for_an_epoch(tmp_path, *words)
    owned = Journal.owned

    def too_late(journal: Journal, setup: Setup, *, fresh: bool) -> AbstractContextManager[None]:
        journal.folder.set_aside()  # as --fresh does in another process
        return owned(journal, setup, fresh=fresh)

    monkeypatch.setattr(Journal, "owned", too_late)
    with pytest.raises(ConfigError, match="set aside by another process just now; run the comm"):
        small_run(tmp_path, *words)
    assert not (folder_of(tmp_path, *words) / "environment.json").exists()


def test_a_teacher_that_is_gone_is_missed(originals: list[Path], tmp_path: Path) -> None:
    (teacher,) = copies(originals[:1], tmp_path / "from")
    words = (*WORDS, "loss=distillation", f"teacher={teacher}")
    go_on_for_an_epoch(tmp_path / "runs", *words)
    shutil.rmtree(teacher)
    with pytest.raises(ConfigError, match=f"^teacher={teacher}: not a run folder: "):
        load(overrides=small_words(tmp_path, *words), has_begun=lambda config: True)


def test_a_file_of_weights_may_be_changed_and_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    file, state = tmp_path / "w.pth", timm.create_model("cifar_resnet8", in_chans=1).state_dict()
    torch.save(state, file)
    words = (*WORDS, f"model.pretrained={file}")
    small_run(tmp_path / "whole", *words)
    for name in ("changed", "deleted"):
        go_on_for_an_epoch(tmp_path / name, *words)
    torch.save({key: value + 1 for key, value in state.items()}, file)
    assert go_on(tmp_path / "changed", *words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "note: the file that model.pretrained names has changed since the run began, which goes on "
        "with what it began with; --fresh begins with the new file"
    ) in said
    file.unlink()
    assert go_on(tmp_path / "deleted", *words) == 0
    whole, *others = (folder_of(tmp_path / n, *words) for n in ("whole", "changed", "deleted"))
    for folder in others:
        assert_same_run(folder, whole)


def test_a_head_that_started_at_class_means_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*WORDS, "model.head=cosine", "model.head_init=class_mean", "model.tune=last_blocks")
    small_run(tmp_path / "whole", *words)
    go_on_for_an_epoch(tmp_path / "runs", *words)
    monkeypatch.setattr(head_start, "class_means", None)
    assert go_on(tmp_path / "runs", *words) == 0
    assert_same_run(*(folder_of(tmp_path / name, *words) for name in ("runs", "whole")))
