"""Features of a frozen backbone, computed once: the same run as through the backbone."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from rich.console import Console
from torch import Tensor

import train
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.report.terminal import Terminal
from engine.training.trained import load_run
from tests._runs import (
    assert_same_run,
    folder_of,
    rows_of,
    small_config,
    small_run,
    summary_of,
    weights_of,
)

# With all that goes with features: an average, pieces of a batch, images drawn more than once.
WORDS = (
    "model=cifar_resnet8",
    "model.tune=head",
    "model.ema=0.9",
    "optim.accumulate=2",
    "sampler=class_balanced",
    "data.augment.flip=true",
    "data.augment.views=2",
    "schedule.epochs=2",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of weights."""
    folder = tmp_path_factory.mktemp("features")
    torch.manual_seed(0)
    state = timm.create_model("cifar_resnet8", in_chans=1).state_dict()
    torch.save(state, folder / "weights.pth")
    return folder


@pytest.fixture(scope="module")
def words(root: Path) -> tuple[str, ...]:
    """A run that trains the head alone."""
    return (*WORDS, f"model.pretrained={root / 'weights.pth'}")


@pytest.fixture(autouse=True)
def _data_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_ROOT", str(root / "data"))


@pytest.fixture(scope="module")
def cached(root: Path, words: tuple[str, ...]) -> Path:
    """The folder of a finished run on features."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_ROOT", str(root / "data"))
        small_run(root / "cached", *words)
    return folder_of(root / "cached", *words)


def assert_close(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], atol=1e-5, rtol=1e-5)


def test_the_head_ends_as_if_every_step_had_gone_through_the_backbone(
    cached: Path, words: tuple[str, ...], tmp_path: Path
) -> None:
    uncached = (*words, "runtime.cache_features=false")
    small_run(tmp_path, *uncached)
    folder = folder_of(tmp_path, *uncached)
    assert folder.name == cached.name  # it is the same run
    assert_close(weights_of(cached), weights_of(folder))
    for ours, theirs in zip(rows_of(cached), rows_of(folder), strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], abs=1e-5)
        assert (ours["train/forward"], theirs["train/forward"]) == (0, theirs["train/images"])
    logits = [np.load(f / "predictions" / "test.val.npz")["logits"] for f in (cached, folder)]
    np.testing.assert_allclose(*logits, atol=1e-5)


def test_a_run_interrupted_in_an_epoch_ends_as_one_that_was_not(
    cached: Path, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.training.checkpointer import Checkpointer
    from engine.training.signals import Interrupted

    poll = Checkpointer.poll

    def stop(checkpoints: Checkpointer) -> None:
        poll(checkpoints)
        if checkpoints.progress.epoch == 1 and checkpoints.progress.totals.steps == 2:
            checkpoints.save()
            raise Interrupted(15)

    monkeypatch.setattr(Checkpointer, "poll", stop)
    with pytest.raises(Interrupted):
        small_run(tmp_path, *words)
    monkeypatch.setattr(Checkpointer, "poll", poll)
    small_run(tmp_path, *words)
    assert_same_run(folder_of(tmp_path, *words), cached)


def test_a_run_without_the_cache_resumes_without_it_to_the_same_bits_unless_told_otherwise(
    root: Path, words: tuple[str, ...], tmp_path: Path
) -> None:
    def stop(epoch: int, row: Mapping[str, Any]) -> None:
        raise KeyboardInterrupt

    uncached = (*words, "runtime.cache_features=false")
    small_run(tmp_path / "whole", *uncached)
    ends = {}
    for name, last in {"as begun": "null", "asked": "true"}.items():
        with pytest.raises(KeyboardInterrupt):
            small_run(tmp_path / name, *uncached, report=stop)
        ends[name] = said(tmp_path / name, *words, f"runtime.cache_features={last}")
    assert "features are computed in every epoch, as they were when" in ends["as begun"]
    whole, as_begun, asked = (
        folder_of(tmp_path / name, *words) for name in ("whole", "as begun", "asked")
    )
    assert_same_run(as_begun, whole)
    assert "note: features was computed and is cached from here on" in ends["asked"]
    assert "features changed during the run: computed -> cached" in summary_of(asked)["notes"]


def test_a_stretch_that_left_no_steps_does_not_say_whether_features_are_cached(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.training.checkpointer import Checkpointer

    words = (*(word for word in words if "epochs" not in word), "schedule.epochs=3")

    def stop(epoch: int, row: Mapping[str, Any]) -> None:
        raise KeyboardInterrupt

    def killed(value: str, *, after_checkpoint: bool) -> None:
        with monkeypatch.context() as patch:
            if not after_checkpoint:
                patch.setattr(Checkpointer, "_catch_up", lambda _self: None)
            with pytest.raises(KeyboardInterrupt):
                small_run(tmp_path, *words, f"runtime.cache_features={value}", report=stop)

    def features() -> list[str]:
        path = folder_of(tmp_path, *words) / "environment.json"
        return [segment["features"] for segment in json.loads(path.read_text())["segments"]]

    killed("false", after_checkpoint=False)
    killed("null", after_checkpoint=True)
    assert features() == ["cached"]
    killed("false", after_checkpoint=False)
    assert features() == ["cached", "computed"]
    assert "as they were when" not in said(tmp_path, *words)
    assert features() == ["cached", "cached"]


def said(root: Path, *words: str) -> str:
    """What a run prints."""
    out = io.StringIO()
    train.run(small_config(root, *words), screen=Terminal(Console(file=out, width=300)))
    return out.getvalue()


def test_another_run_on_the_same_images_reads_the_file(
    cached: Path, root: Path, words: tuple[str, ...], tmp_path: Path
) -> None:
    files = sorted((root / "data" / "cache" / "features").iterdir())
    assert len(files) == 3  # train, val and test
    printed = said(tmp_path, *words, "loss=balanced_softmax")
    assert re.search(r"features of \d+ train images in 2 views: read from ", printed)
    assert sorted((root / "data" / "cache" / "features").iterdir()) == files


def test_a_damaged_file_is_computed_again(
    cached: Path, root: Path, words: tuple[str, ...], tmp_path: Path
) -> None:
    for file in (root / "data" / "cache" / "features").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    small_run(tmp_path, *words)
    assert_same_run(folder_of(tmp_path, *words), cached)


def test_other_weights_have_features_of_their_own(root: Path, tmp_path: Path) -> None:
    state = torch.load(root / "weights.pth", weights_only=True)
    other = {
        key: value * 1.1 if value.is_floating_point() else value for key, value in state.items()
    }
    torch.save(other, tmp_path / "other.pth")
    found = []
    for file in (root / "weights.pth", tmp_path / "other.pth"):
        words = (*WORDS[:2], "schedule.epochs=1", f"model.pretrained={file}")
        small_run(tmp_path / file.stem, *words)
        found.append(rows_of(folder_of(tmp_path / file.stem, *words))[0]["train/loss"])
    assert found[0] != found[1]


def test_a_folder_that_cannot_be_written_only_costs_the_file(
    words: tuple[str, ...], cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "file"))
    assert "cannot be written" in said(tmp_path, *words)
    assert_same_run(folder_of(tmp_path, *words), cached)


def test_the_whole_model_is_loaded(cached: Path) -> None:
    run = load_run(cached)
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    output = run.model(torch.rand(3, 1, 8, 8))
    assert output.features.shape == (3, 64)
    assert run.predict(images).shape == (3, 4)


HEAD = ("model.tune=head", "model.pretrained=true")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["runtime.cache_features=true"],
            "runtime.cache_features=true: cannot be, features change with the backbone; needs "
            "model.tune=head",
        ),
        (
            [*HEAD, "runtime.cache_features=true", "mixup.cutmix=1"],
            "runtime.cache_features=true: cannot be, every epoch mixes other images; needs "
            "mixup.cutmix=0",
        ),
        (
            [*HEAD, "runtime.cache_features=true", "data.augment.flip=true"],
            "runtime.cache_features=true: cannot be, every epoch has new images; needs "
            "data.augment off, or a number of views of it",
        ),
        (
            [*HEAD, "runtime.compile=true"],
            "runtime.compile=true: has no effect, the head alone is trained, on features that are "
            "kept; leave it out, or set runtime.cache_features=false",
        ),
        (
            ["runtime.cache_features=false"],
            "runtime.cache_features=false: has no effect, features change with the backbone; needs "
            "model.tune=head",
        ),
        (
            ["data.augment.views=2"],
            "data.augment.views=2: has no effect, data.augment changes no image",
        ),
    ],
)
def test_keeping_features_that_do_not_stay_is_refused(words: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(overrides=words)
    assert caught.value.mistakes == (line,)
