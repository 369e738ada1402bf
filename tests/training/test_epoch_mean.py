"""Stochastic weight averaging: the mean over epochs, statistics of its own, resume bit for bit."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.training.averaging import EpochMean, renew_statistics
from engine.training.checkpointer import Checkpointer
from engine.training.selection import copy_of
from engine.training.signals import Interrupted
from tests._runs import assert_same_run, folder_of, small_run

WORDS = (
    "model=cifar_resnet8",
    "model.swa=0.5",
    "schedule=constant",
    "schedule.epochs=4",
    "data.num_train_per_class=24",
    "data.validation.per_class=4",
)


class Stop(Exception):  # noqa: N818 - not an error: it ends a run
    """Ends a run after an epoch."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Tensor]]]:
    """A whole run, and its own weights after each epoch."""
    root = tmp_path_factory.mktemp("whole")
    after_epoch, seen = Checkpointer.after_epoch, list[dict[str, Tensor]]()

    def look(checkpoints: Checkpointer, *, is_last: bool) -> None:
        seen.append(copy_of(checkpoints.trainer.model.state_dict()))
        after_epoch(checkpoints, is_last=is_last)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpointer, "after_epoch", look)
        small_run(root, *WORDS)
    return folder_of(root, *WORDS), seen


def test_the_mean_is_that_of_the_epochs_from_the_first_on() -> None:
    model = nn.Linear(3, 2)
    mean, added = EpochMean(model, first_epoch=1), []
    for epoch in range(4):
        nn.init.normal_(model.weight)
        if epoch >= 1:
            assert mean.lacks(epoch)
            mean.add(model)
            added.append(model.weight.detach().clone())
        assert not mean.lacks(epoch) or epoch == 0
    torch.testing.assert_close(mean.module.weight, torch.stack(added).mean(0))


def test_statistics_are_means_over_the_batches_of_these_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, momentum=0.1), nn.Dropout(0.9))
    batches = [torch.randn(4, 1, 3, 3) for _ in range(3)]
    number = renew_statistics(model, batches, forward=model)
    shown = [model[0](batch).detach() for batch in batches]
    mean = torch.stack([x.mean((0, 2, 3)) for x in shown]).mean(0)
    variance = torch.stack([x.var((0, 2, 3)) for x in shown]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, variance)
    assert (number, model[1].momentum, model.training) == (12, 0.1, False)


def test_an_image_of_a_smaller_last_batch_counts_as_much_as_any_other() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1))
    images = torch.tensor([0.0, 0.0, 0.0, 0.0, 10.0])[:, None, None, None].expand(5, 1, 2, 2)
    renew_statistics(model, images.split(4), forward=model)
    torch.testing.assert_close(model[0].running_mean, torch.tensor([2.0]))


def test_frozen_statistics_and_models_without_any_are_left_alone() -> None:
    class Frozen(nn.BatchNorm2d):
        def train(self, mode: bool = True) -> Frozen:  # noqa: FBT001, FBT002
            return super().train(False)

    frozen = Frozen(1)
    frozen.running_mean.fill_(7.0)
    assert renew_statistics(nn.Sequential(frozen), [torch.ones(2, 1, 2, 2)], forward=print) == 0
    assert frozen.running_mean.item() == 7.0
    assert renew_statistics(nn.Linear(2, 2), [torch.ones(2, 2)], forward=print) == 0


def test_what_is_kept_is_the_mean_of_the_last_epochs_with_other_statistics(
    run: tuple[Path, list[dict[str, Tensor]]],
) -> None:
    folder, seen = run
    kept = torch.load(folder / "checkpoints/last.pt", weights_only=True)["ema"]
    for name in ("head.weight", "backbone.conv1.weight"):
        torch.testing.assert_close(kept[name], (seen[2][name] + seen[3][name]) / 2)
    assert not torch.equal(kept["backbone.bn1.running_mean"], seen[3]["backbone.bn1.running_mean"])


def test_only_averaged_epochs_are_chosen_and_the_pass_over_images_is_counted(
    run: tuple[Path, list[dict[str, Tensor]]],
) -> None:
    summary = json.loads((run[0] / "summary.json").read_text())
    assert summary["rules"]["val"]["epoch"] >= 3
    assert summary["cost"]["forward"] == 1.5 * summary["cost"]["images"]
    assert summary["cost"]["backward"] == summary["cost"]["images"]


def test_a_run_that_was_stopped_equals_the_uninterrupted_one_bit_for_bit(
    tmp_path: Path, run: tuple[Path, list[dict[str, Tensor]]]
) -> None:
    def stop(epoch: int, _row: Mapping[str, Any]) -> None:
        if epoch in (1, 3):
            raise Stop

    for _ in range(2):
        with pytest.raises(Stop):
            small_run(tmp_path, *WORDS, report=stop)
    small_run(tmp_path, *WORDS)
    assert_same_run(folder_of(tmp_path, *WORDS), run[0])


def test_processes_ask_each_other_as_often_however_many_pieces_each_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All take part in each poll, and one with another image may cut a batch into other pieces."""
    polls: list[Checkpointer] = []

    def count(checkpoints: Checkpointer) -> None:
        polls.append(checkpoints)

    monkeypatch.setattr(Checkpointer, "poll", count)
    small_run(tmp_path / "whole", *WORDS)
    whole = len(polls)
    small_run(tmp_path / "pieces", *WORDS, "optim.accumulate=4")
    assert len(polls) == 2 * whole > 0


def test_a_signal_while_statistics_are_renewed_stops_the_run_and_changes_nothing(
    tmp_path: Path,
    run: tuple[Path, list[dict[str, Tensor]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poll = Checkpointer.poll

    def poll_while_renewing(self: Checkpointer) -> None:
        swa = self.trainer.swa
        assert swa is not None
        self.interruption.signal_number = None if swa.is_renewed else signal.SIGTERM
        poll(self)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "poll", poll_while_renewing)
        with pytest.raises(Interrupted):
            small_run(tmp_path, *WORDS)
    small_run(tmp_path, *WORDS)
    assert_same_run(folder_of(tmp_path, *WORDS), run[0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.swa=0.5", "model.ema=0.9"], "model.swa=0.5: cannot go with model.ema=0.9"),
        (["model.swa=0.99", "schedule.epochs=4"], "model.swa=0.99: never begins"),
        (["model.swa=1"], "model.swa=1: expected"),
    ],
)
def test_a_mean_that_cannot_be_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(overrides=words)
    assert str(caught.value).startswith(said)
