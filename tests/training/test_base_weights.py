"""Checkpoints of lightly tuned runs: the small part, and where the rest of the weights is."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import models
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.training.base_weights import base_of
from engine.training.checkpointer import Checkpointer
from engine.training.signals import Interrupted
from engine.training.trained import load_run, load_weights
from models import _hub
from models.heads.linear import Linear
from tests._runs import folder_of, small_run, weights_of

# Its statistics change, which are no parameters.
NORM = ("model=cifar_resnet8", "model.tune=norm", "schedule.epochs=1")


def weights_file(path: Path, *, seed: int = 0, channels: int = 1) -> Path:
    torch.manual_seed(seed)
    torch.save(timm.create_model("cifar_resnet8", in_chans=channels).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def norm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run that trained its normalisation layers."""
    root = tmp_path_factory.mktemp("base")
    words = (*NORM, f"model.pretrained={weights_file(root / 'weights.pth')}")
    small_run(root, *words)
    return folder_of(root, *words)


def file_of(run: Path) -> Path:
    return run.parent.parent / "weights.pth"


def test_a_checkpoint_holds_what_has_changed_and_nothing_else(norm: Path) -> None:
    held = weights_of(norm)
    whole = load_weights(norm).state
    assert all("conv" not in key and "downsample.0" not in key for key in held)
    running = [key for key in whole if key.endswith("running_mean")]
    assert running and held.keys() >= {*running, "head.weight", "head.bias"}
    assert sum(v.numel() for v in held.values()) < sum(v.numel() for v in whole.values()) / 20


def test_loading_puts_the_weights_together_again(norm: Path) -> None:
    state, file = load_run(norm).model.state_dict(), torch.load(file_of(norm), weights_only=True)
    convolutions = [key for key in file if "conv" in key and file[key].ndim == 4]
    assert convolutions
    for key in convolutions:
        assert torch.equal(state[f"backbone.{key}"], file[key])
    assert list(load_weights(norm).state) == list(state)


def test_weights_that_were_replaced_since_are_named(norm: Path, tmp_path: Path) -> None:
    kept = shutil.copy(file_of(norm), tmp_path / "kept.pth")
    try:
        weights_file(file_of(norm), seed=1)
        with pytest.raises(ConfigError, match="was trained on other weights") as caught:
            load_run(norm)
        (line,) = caught.value.mistakes
        assert str(file_of(norm)) in line and "--fresh" in line and "\n" not in line
        file_of(norm).unlink()
        with pytest.raises(ConfigError, match="holds only what it has trained") as caught:
            load_run(norm)
        assert str(file_of(norm)) in caught.value.mistakes[0]
    finally:
        shutil.copy(kept, file_of(norm))


def test_a_run_does_not_go_on_with_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*NORM, f"model.pretrained={weights_file(tmp_path / 'weights.pth')}")
    poll = Checkpointer.poll

    def stop(checkpoints: Checkpointer) -> None:
        poll(checkpoints)
        checkpoints.save()
        raise Interrupted(15)

    monkeypatch.setattr(Checkpointer, "poll", stop)
    with pytest.raises(Interrupted):
        small_run(tmp_path, *words)
    monkeypatch.setattr(Checkpointer, "poll", poll)
    weights_file(tmp_path / "weights.pth", seed=1)
    with pytest.raises(ConfigError) as caught:
        small_run(tmp_path, *words)
    assert caught.value.mistakes == (
        f"{folder_of(tmp_path, *words)}: began with other weights of the file that "
        "model.pretrained names, which has changed since; put the old file back, or use --fresh",
    )


def test_a_finished_run_is_not_shown_for_another_file_of_weights(
    norm: Path, tmp_path: Path
) -> None:
    """Two files of one name are one run by its fingerprint; a file that is gone is not missed."""
    root, words = norm.parent.parent, (*NORM, f"model.pretrained={file_of(norm)}")
    kept = shutil.copy(file_of(norm), tmp_path / "kept.pth")
    try:
        weights_file(file_of(norm), seed=1)
        with pytest.raises(ConfigError, match=r"file that model\.pretrained names, which has chan"):
            small_run(root, *words)
        file_of(norm).unlink()
        small_run(root, *words)
    finally:
        shutil.copy(kept, file_of(norm))


def test_weights_of_another_shape_or_type_are_other_weights() -> None:
    model = models.build(
        "cifar_resnet8", num_outputs=2, in_channels=1, image_size=8, head=Linear, freeze=True
    )
    config = load(
        overrides=["model=cifar_resnet8", "model.tune=head", "model.init_from=run"],
        check_named_runs=False,
    )
    weight = torch.ones(2, 3)
    found = [base_of(config, model, named={"weight": w}) for w in (weight, weight.T, weight.half())]
    hashes = [base.hash for base in found if base is not None]
    assert len(set(hashes)) == 3


def test_a_checkpoint_that_names_its_base_by_an_older_hash_is_still_loaded(
    norm: Path, tmp_path: Path
) -> None:
    """Older hashes are over names and float32 values: 12 digits."""
    run = Path(shutil.copytree(norm, tmp_path / norm.name))
    joined = hashlib.sha256()
    for key, value in sorted(torch.load(file_of(norm), weights_only=True).items()):
        values = value.float() if value.is_floating_point() else value
        joined.update(key.encode() + b"\0" + hashlib.sha256(values.numpy().tobytes()).digest())
    last = run / "checkpoints" / "last.pt"
    state = torch.load(last, weights_only=True)
    torch.save({**state, "base": {**state["base"], "hash": joined.hexdigest()[:12]}}, last)
    theirs = load_weights(norm).state
    assert all(torch.equal(v, theirs[k]) for k, v in load_weights(run).state.items())
    torch.save({**state, "base": {**state["base"], "hash": "0123456789ab"}}, last)
    with pytest.raises(ConfigError, match="was trained on other weights"):
        load_weights(run)


def test_a_light_run_on_a_light_run_is_put_together_from_both(norm: Path, tmp_path: Path) -> None:
    words = ("model=cifar_resnet8", "model.tune=head", f"model.init_from={norm}", NORM[-1])
    small_run(tmp_path, *words)
    second = folder_of(tmp_path, *words)
    assert weights_of(second).keys() == {"head.weight", "head.bias"}
    ours, theirs = load_weights(second).state, load_weights(norm).state
    below = [key for key in ours if key.startswith("backbone.")]
    assert below and all(torch.equal(ours[key], theirs[key]) for key in below)


def test_what_is_computed_from_the_weights_need_not_be_computed_alike_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filters for grey images are sums over colours, in an order that processors choose."""
    file = weights_file(tmp_path / "weights.pth", channels=3)
    words = ("model=cifar_resnet8", "model.tune=head", f"model.pretrained={file}", NORM[-1])
    small_run(tmp_path, *words)
    run = folder_of(tmp_path, *words)
    assert weights_of(run).keys() == {"backbone.conv1.weight", "head.weight", "head.bias"}
    whole, build = load_weights(run).state, models.build

    def build_elsewhere(*args: Any, **kwargs: Any) -> models.Classifier:
        model = build(*args, **kwargs)
        with torch.no_grad():
            model.get_parameter("backbone.conv1.weight").mul_(1 + 2**-23)
        return model

    monkeypatch.setattr(models, "build", build_elsewhere)
    state = load_weights(run).state
    assert all(torch.equal(state[key], value) for key, value in whole.items())


def test_weights_that_timm_downloads_are_compared_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = weights_file(tmp_path / "weights.pth", channels=3)
    monkeypatch.setattr(_hub, "trouble", lambda name: "")
    create = timm.create_model

    def create_from_file(*args: Any, pretrained: bool = False, **kwargs: Any) -> Any:
        overlay = {"pretrained_cfg_overlay": {"file": str(file)}} if pretrained else {}
        return create(*args, pretrained=pretrained, **overlay, **kwargs)

    monkeypatch.setattr(timm, "create_model", create_from_file)
    words = ("model=cifar_resnet8", "model.tune=head", "model.pretrained=true", NORM[-1])
    small_run(tmp_path, *words)
    run = folder_of(tmp_path, *words)
    assert weights_of(run).keys() == {"backbone.conv1.weight", "head.weight", "head.bias"}
    state, theirs = load_weights(run).state, torch.load(file, weights_only=True)
    key = "layer1.0.conv1.weight"
    assert torch.equal(state[f"backbone.{key}"], theirs[key])
