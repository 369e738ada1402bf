"""Augmentation image by image, in the loader's workers: torchvision.transforms.v2."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from data._augment import Augment, image_seed
from data._base import ImageShape, Interpolation, Size

_LARGEST_SHIFT = 32  # pixels, torchvision's for TrivialAugmentWide at every size
_LARGEST_SHIFT_SHARE = 150 / 331  # of the side, torchvision's for RandAugment and AutoAugment


class ImageTransform:
    """Random resized crop, augmentation policy and colour jitter, in that order.

    What is drawn for an image is a function of (seed, epoch, key) alone, whichever process draws.
    TrivialAugment shifts by at most 32 pixels, as torchvision has it, but never by more than
    RandAugment's 150/331 of the side: 32 pixels push an image of 32 or fewer out of its frame.

    Args:
        augment: Which of them, and how strong.
        shape: Shape of the images that come out.
        seed: Seed of the loader's stream.
        epoch: Number of the epoch.
        interpolation: How a random crop is resized, antialiased.
    """

    def __init__(
        self,
        augment: Augment,
        *,
        shape: ImageShape,
        seed: int,
        epoch: int,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        from torchvision.transforms import v2

        steps: list[Callable[[Tensor], Tensor]] = []
        if augment.resized_crop:
            size = Size(shape.height, shape.width)
            steps.append(_ResizedCrop(size, augment.resized_crop, interpolation=interpolation))
        if augment.policy == "randaugment":
            steps.append(v2.RandAugment())
        if augment.policy == "trivialaugment":
            policy = v2.TrivialAugmentWide()
            policy._AUGMENTATION_SPACE = {
                **policy._AUGMENTATION_SPACE,
                "TranslateX": (_shifts_across, True),
                "TranslateY": (_shifts_down, True),
            }
            steps.append(policy)
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


def _shifts_across(num_bins: int, _height: int, width: int) -> Tensor:
    """Return TrivialAugment's horizontal shifts in pixels; a function, so that it pickles."""
    return torch.linspace(0.0, min(_LARGEST_SHIFT, _LARGEST_SHIFT_SHARE * width), num_bins)


def _shifts_down(num_bins: int, height: int, _width: int) -> Tensor:
    return torch.linspace(0.0, min(_LARGEST_SHIFT, _LARGEST_SHIFT_SHARE * height), num_bins)


class _ResizedCrop:
    """torchvision's RandomResizedCrop, to the same pixels at half of the cost.

    Decoded photographs have their channels last in memory. Told so, torch resizes a crop where it
    lies; torchvision's own call makes it copy to planes and back.
    """

    def __init__(self, size: Size, smallest: float, *, interpolation: Interpolation) -> None:
        from torchvision.transforms import v2

        self._drawn = v2.RandomResizedCrop(size, (smallest, 1.0))
        self._size, self._interpolation = size, interpolation

    def __call__(self, image: Tensor) -> Tensor:
        box = self._drawn.make_params([image])
        rows = slice(box["top"], box["top"] + box["height"])
        columns = slice(box["left"], box["left"] + box["width"])
        crop = image[:, rows, columns]
        if tuple(crop.shape[1:]) == self._size:
            return crop
        alone = crop.permute(1, 2, 0)[None].permute(0, 3, 1, 2)  # strides as of a batch of such
        return interpolate(alone, self._size, mode=self._interpolation, antialias=True)[0]


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
