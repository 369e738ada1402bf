"""Augmentation image by image, in the loader's workers: torchvision.transforms.v2."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from data._augment import Augment, image_seed
from data._base import ImageShape


class ImageTransform:
    """Random resized crop, augmentation policy and colour jitter, in that order.

    What is drawn for an image is a function of (seed, epoch, key) alone, whichever process draws.

    Args:
        augment: Which of them, and how strong.
        shape: Shape of the images that come out.
        seed: Seed of the loader's stream.
        epoch: Number of the epoch.
    """

    def __init__(self, augment: Augment, *, shape: ImageShape, seed: int, epoch: int) -> None:
        from torchvision.transforms import v2

        steps: list[torch.nn.Module] = []
        if augment.resized_crop:
            size, scale = (shape.height, shape.width), (augment.resized_crop, 1.0)
            steps.append(v2.RandomResizedCrop(size, scale=scale, antialias=True))
        if augment.policy == "randaugment":
            steps.append(v2.RandAugment())
        if augment.policy == "trivialaugment":
            steps.append(v2.TrivialAugmentWide())
        if augment.color_jitter:
            width = augment.color_jitter
            steps.append(v2.ColorJitter(brightness=width, contrast=width, saturation=width))
        self._steps, self._seed, self._epoch = steps, seed, epoch

    def __call__(self, image: Tensor, key: int) -> Tensor:
        """Return the image (C, H, W), uint8, of any size, as the one that ``key`` stands for."""
        with _seeded(image_seed(key, seed=self._seed, epoch=self._epoch)):
            for step in self._steps:
                image = step(image)
        return image


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator of the CPU, which torchvision draws from, and put it back.

    ``torch.manual_seed`` would seed every device as well.
    """
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before)
