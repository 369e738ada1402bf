"""What a run makes of the facts of its loss: notes, and what several processes may share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.training import build, notes
from engine.training.processes import Processes
from tests._runs import small_config, small_run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["loss=balanced_softmax", "sampler=class_balanced"],
            ["balanced_softmax fits a uniform prior by itself, sampler.name=class_balanced"],
        ),
        (
            ["loss=vector_scaling", "reweight=inverse", "sampler=square_root"],
            ["sampler.name=square_root balances", "reweight.scheme=inverse balances"],
        ),
        (
            ["reweight=inverse", "sampler=class_balanced"],
            ["sampler.name=class_balanced and reweight.scheme=inverse each balance training"],
        ),
        (["reweight=inverse"], []),
        (["loss=logit_adjustment", "loss.tau=0", "sampler=class_balanced"], []),
        (["loss=balanced_softmax"], []),
        (["loss=ldam", "model.head=cosine", "reweight=inverse"], []),
        (["model.head=cosine"], ["cosines, -1 to 1, which cross_entropy does not scale"]),
    ],
)
def test_what_is_balanced_twice_or_never_sure_is_noted(
    words: list[str], expected: list[str]
) -> None:
    found = notes.notes(load(overrides=words))
    assert len(found) == len(expected)
    assert all(text in note for text, note in zip(expected, found, strict=True))


def test_a_note_reaches_the_summary(tmp_path: Path) -> None:
    summary = small_run(tmp_path, "model.head=cosine", "schedule.epochs=1")
    assert any("no prediction is sure (model.head=cosine)" in note for note in summary.notes)


def test_processes_cannot_share_a_batch_that_a_loss_compares_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Processes, "current", staticmethod(lambda: Processes(0, 2)))
    config = small_config(tmp_path, "loss=tversky")
    dataset = build.build_dataset(config)
    with pytest.raises(ConfigError, match="loss=tversky: compares a batch as a whole, and 2 proc"):
        build.build_trainer(config, dataset, device=torch.device("cpu"))


@pytest.mark.parametrize(
    "words",
    [
        ["reweight=power", "reweight.power=1e300"],
        ["reweight=explicit", "reweight.weights=[1, 1, 1, 1e-60]"],
        ["reweight=explicit", "reweight.weights=[1, 1, 1, 1e60]"],
    ],
)
def test_class_weights_that_float32_cannot_hold_are_refused_before_the_run(
    tmp_path: Path, words: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"the weight .*, which is 0 or infinite in float32"):
        small_run(tmp_path, *words)
    assert list(tmp_path.iterdir()) == []
