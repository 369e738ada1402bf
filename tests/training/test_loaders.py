"""What serves the batches of each split."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import data
from engine.training.build import build_model
from engine.training.loaders import Loaders
from engine.training.machine import machine
from engine.training.setup import load_dataset
from tests._runs import small_config

FROZEN = ("model.freeze=true", "model.pretrained=true")


@pytest.mark.parametrize("words", [(), FROZEN], ids=["trained", "frozen"])
def test_training_images_are_evaluated_as_tested_ones_are(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Not as they are trained on: of another size, or cropped otherwise."""
    config = small_config(tmp_path, "model=cifar_resnet8", *words)
    dataset = load_dataset(small_config(tmp_path))
    images, count = dataset.train.images, len(dataset.train)
    assert isinstance(images, torch.Tensor)
    names, shape = np.array([b"absent.png"] * count), data.ImageShape(1, 12, 12)
    files = data.DiskImages(tmp_path, names, file_sizes=np.ones(count, dtype=np.int64), shape=shape)
    train = dataclasses.replace(dataset.train, files=files, is_trained_as_tested=False)
    model = build_model(small_config(tmp_path, "model=cifar_resnet8"), dataset)
    with machine(config.runtime, say=print) as computer:
        loaders = Loaders(
            config, dataclasses.replace(dataset, train=train), machine=computer, model=model
        )
        batch = next(
            loaders.evaluating("train", after_batch=lambda: None).epoch(torch.arange(5), epoch=0)
        )
    expected = (images[:5].double() / 255 - dataset.mean[0]) / dataset.std[0]
    torch.testing.assert_close(batch.images.cpu().double(), expected, atol=1e-5, rtol=0)
