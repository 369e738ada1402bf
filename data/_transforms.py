"""Augmentation image by image, in the loader's workers: torchvision.transforms.v2."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from data._augment import Augment, image_seed
from data._base import ImageShape, Interpolation, Size
from data._decode_part import Box, Part

_LARGEST_SHIFT = 32  # pixels, torchvision's for TrivialAugmentWide at every size
_RATIOS = (3 / 4, 4 / 3)  # narrowest and widest crop, width / height, torchvision's
_TRIES = 10  # boxes drawn before the centre is taken, torchvision's
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

        self._crop = None
        if augment.resized_crop:
            size = Size(shape.height, shape.width)
            self._crop = _ResizedCrop(size, augment.resized_crop, interpolation=interpolation)
        steps: list[Callable[[Tensor], Tensor]] = []
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
        self._generator = torch.Generator()

    def __call__(self, image: Tensor, key: int) -> Tensor:
        """Return the image (C, H, W), uint8, of any size, as the one that ``key`` stands for."""
        whole = Size(*image.shape[1:])
        if self._crop is not None:
            image = self.box(whole, key).of(image)
        return self.of_part(Part(image, whole), key)

    def box(self, whole: Size, key: int) -> Box:
        """Return which part of an image of this size the random crop shows."""
        assert self._crop is not None, "there is no random crop"
        return self._crop.draw(whole, self._seeded(key))

    def of_part(self, part: Part, key: int) -> Tensor:
        """Return the same as for the whole image, of the part that :meth:`box` has chosen."""
        image = part.pixels if self._crop is None else self._crop.resized(part.pixels)
        if not self._steps:
            return image
        generator = self._seeded(key)
        if self._crop is not None:
            self._crop.draw(part.whole, generator)  # what follows is drawn after the box
        with _drawing_from(generator):
            for step in self._steps:
                image = step(image)
        return image

    def _seeded(self, key: int) -> torch.Generator:
        return self._generator.manual_seed(image_seed(key, seed=self._seed, epoch=self._epoch))


def _shifts_across(num_bins: int, _height: int, width: int) -> Tensor:
    """Return TrivialAugment's horizontal shifts in pixels; a function, so that it pickles."""
    return torch.linspace(0.0, min(_LARGEST_SHIFT, _LARGEST_SHIFT_SHARE * width), num_bins)


def _shifts_down(num_bins: int, height: int, _width: int) -> Tensor:
    return torch.linspace(0.0, min(_LARGEST_SHIFT, _LARGEST_SHIFT_SHARE * height), num_bins)


class _ResizedCrop:
    """torchvision's RandomResizedCrop, to the same pixels at half of the cost.

    Decoded photographs have their channels last in memory. Told so, torch resizes a crop where it
    lies; torchvision's own call makes it copy to planes and back. The box can be drawn before the
    image is decoded.
    """

    def __init__(self, size: Size, smallest: float, *, interpolation: Interpolation) -> None:
        self._size, self._smallest, self._interpolation = size, smallest, interpolation
        self._logs = torch.tensor(_RATIOS).log().tolist()  # in float32, as torchvision has them

    def draw(self, whole: Size, generator: torch.Generator) -> Box:
        """Draw a box by the numbers that torchvision draws."""

        def uniform(low: float, high: float) -> Tensor:
            return torch.empty(1).uniform_(low, high, generator=generator)

        def position(num: int) -> int:
            return int(torch.randint(0, num, (1,), generator=generator).item())

        for _ in range(_TRIES):
            area = whole.height * whole.width * uniform(self._smallest, 1.0).item()
            ratio = uniform(*self._logs).exp_().item()
            height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < height <= whole.height and 0 < width <= whole.width:
                top = position(whole.height - height + 1)
                return Box(top, position(whole.width - width + 1), height, width)
        narrowest, widest = _RATIOS
        height = min(whole.height, round(whole.width / narrowest))
        width = min(whole.width, round(whole.height * widest))
        return Box((whole.height - height) // 2, (whole.width - width) // 2, height, width)

    def resized(self, crop: Tensor) -> Tensor:
        """Resize a crop (C, height, width)."""
        if tuple(crop.shape[1:]) == self._size:
            return crop
        alone = crop.permute(1, 2, 0)[None].permute(0, 3, 1, 2)  # strides as of a batch of such
        return interpolate(alone, self._size, mode=self._interpolation, antialias=True)[0]


@contextlib.contextmanager
def _drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Put a generator in the place of torch's own of the CPU, which torchvision draws from."""
    before = torch.default_generator.get_state()
    torch.default_generator.set_state(generator.get_state())
    try:
        yield
    finally:
        torch.default_generator.set_state(before)
