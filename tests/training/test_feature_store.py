"""What files of features are named by, and when they are written and read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import PIL
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

from engine.config.components import ROOT
from engine.config.load import load
from engine.config.schema import Config
from engine.training import build, frozen_features
from engine.training.loaders import Loaders
from engine.training.machine import machine
from engine.training.signals import Interrupted
from tests._runs import small_config


@pytest.fixture
def head_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A run on drawn images that trains the head alone."""
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    return small_config(tmp_path / "runs", *light_words(tmp_path, in_chans=1))


def light_words(folder: Path, *, in_chans: int) -> tuple[str, ...]:
    """Words for a head on a drawn backbone."""
    torch.manual_seed(0)
    file = folder / "weights.pth"
    torch.save(timm.create_model("cifar_resnet8", in_chans=in_chans).state_dict(), file)
    return "model=cifar_resnet8", "model.tune=head", f"model.pretrained={file}"


def features_of_test(config: Config, *, filled_with: float | None = None) -> tuple[Tensor, str]:
    """Features (1, N, D) of the test images, and what is said of them."""
    dataset = build.build_dataset(config)
    with machine(config.runtime) as computer:
        model = build.build_model(config, dataset)
        if filled_with is not None:
            torch.nn.init.constant_(next(model.backbone.parameters()), filled_with)
        loaders = Loaders(config, dataset, machine=computer, model=model)
        table = loaders._features("test")
    return table, loaders.remarks[-1]


def kept_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "root" / "cache" / "features").glob("**/*"))


def save_photos(folder: Path, *, seed: int) -> None:
    """Bitmaps, whose size in bytes says nothing of what they show."""
    draw = np.random.default_rng(seed)
    for name in [f"{split}/{label}" for split in ("train", "test") for label in "ab"]:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(4):
            pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.bmp")


def test_images_replaced_by_others_of_the_same_names_and_sizes_have_features_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "root"))
    save_photos(tmp_path / "photos", seed=0)
    words = f"data=image_folder data.path={tmp_path / 'photos'} data.cache_gb=0"
    words += " data.normalize=imagenet data.augment.flip=false data.validation.fraction=null"
    config = load(overrides=[*words.split(), *light_words(tmp_path, in_chans=3)])
    first, _ = features_of_test(config)
    save_photos(tmp_path / "photos", seed=1)
    second, said = features_of_test(config)
    assert "computed once" in said
    assert not torch.equal(first, second)


def test_images_of_another_size_have_features_of_their_own(head_alone: Config) -> None:
    features_of_test(head_alone)
    data = head_alone.data.model_copy(update={"size": 12})
    table, said = features_of_test(head_alone.model_copy(update={"data": data}))
    assert "computed once" in said and table.shape == features_of_test(head_alone)[0].shape


def test_another_decoder_makes_other_features(
    head_alone: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    features_of_test(head_alone)
    assert "read from" in features_of_test(head_alone)[1]
    monkeypatch.setattr(PIL, "__version__", "0.1")
    assert "computed once" in features_of_test(head_alone)[1]


def test_a_tracker_of_another_version_makes_the_same_features() -> None:
    assert "wandb" not in frozen_features.PACKAGES


def test_the_code_of_features_is_what_an_image_goes_through(head_alone: Config) -> None:
    found = {f.relative_to(ROOT).as_posix() for f in frozen_features.code_of_features(head_alone)}
    assert found >= {
        "data/_decode.py",
        "data/synthetic.py",
        "models/_classifier.py",
        "models/cifar_resnet.py",
        "models/tuning/head.py",
        "models/tuning/_base.py",
        "engine/training/frozen_features.py",
        "engine/training/loaders.py",
        "engine/training/runtime.py",
    }
    others = ("losses/", "data/samplers/", "models/heads/", "engine/training/metrics/")
    assert not [name for name in found if name.startswith(others)]


def test_features_with_infinities_are_not_kept(head_alone: Config, tmp_path: Path) -> None:
    _, said = features_of_test(head_alone, filled_with=float("inf"))
    assert said.endswith("computed once; not kept, since some are infinite or NaN")
    assert kept_files(tmp_path) == []


def test_a_file_of_features_is_on_the_disk_before_it_has_its_name(
    head_alone: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[list[Path]] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(kept_files(tmp_path)))
    _, said = features_of_test(head_alone)
    (file,) = kept_files(tmp_path)
    assert str(file) in said
    assert synced
    assert all(file not in files for files in synced)


def test_computed_features_are_a_map_of_their_file_and_no_second_copy(
    head_alone: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, found = frozen_features._read, []

    def recorded(file: Path, *, shape: tuple[int, int]) -> Tensor | None:
        found.append(read(file, shape=shape))
        return found[-1]

    monkeypatch.setattr(frozen_features, "_read", recorded)
    table, said = features_of_test(head_alone)
    assert "computed once, kept in" in said
    assert table is found[-1]
    np.testing.assert_array_equal(np.load(kept_files(tmp_path)[0]), table.numpy())


def test_the_pass_that_computes_features_can_be_stopped_and_leaves_nothing(
    head_alone: Config, tmp_path: Path
) -> None:
    dataset = build.build_dataset(head_alone)

    def stop() -> None:
        raise Interrupted(15)

    with machine(head_alone.runtime) as computer:
        model = build.build_model(head_alone, dataset).train()
        loaders = Loaders(head_alone, dataset, machine=computer, model=model)
        with pytest.raises(Interrupted):
            loaders.evaluating("test", stop)
    assert model.training and not kept_files(tmp_path)
