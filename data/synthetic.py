"""Drawn images, for tests and for scale."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Interval

from data._base import Labelled, Pool

_GRID = 4  # a class is a pattern of 4 x 4 tiles
_PATTERNS, _TRAIN, _TEST = range(3)


class Synthetic:
    """A pattern of random tiles for each class, blended with noise; any number of each.

    An image is (1 - noise) pattern + noise n with n uniform over 0..255. Everything is drawn
    from raw bits, so it is the same on every platform.

    Args:
        num_classes: Number of classes.
        num_train_per_class: Training images of each class, before any imbalance.
        num_test_per_class: Test images of each class.
        size: Side of the images in pixels.
        channels: Number of channels.
        noise: Share of noise in an image, from 0 (a class is one image) to 1 (noise alone).
        seed: Seed of the patterns and the noise, apart from the seed of the run.
    """

    def __init__(
        self,
        *,
        num_classes: Annotated[int, Ge(2)] = 10,
        num_train_per_class: Annotated[int, Ge(1)] = 200,
        num_test_per_class: Annotated[int, Ge(1)] = 20,
        size: Annotated[int, Ge(1)] = 8,
        channels: Annotated[int, Ge(1)] = 1,
        noise: Annotated[float, Interval(ge=0, le=1)] = 0.7,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        self._num_classes = num_classes
        self._num_train = num_train_per_class
        self._num_test = num_test_per_class
        self._size = size
        self._channels = channels
        self._noise = noise
        self._seed = seed

    def load(self) -> Pool:
        """Draw the images, class after class."""
        tile = np.arange(self._size) * _GRID // self._size
        tiles = self._bytes(_PATTERNS, (self._num_classes, self._channels, _GRID, _GRID))
        patterns = tiles[:, :, tile[:, None], tile]
        digits = len(str(self._num_classes - 1))
        return Pool(
            train=self._draw(_TRAIN, patterns, per_class=self._num_train),
            test=self._draw(_TEST, patterns, per_class=self._num_test),
            class_names=tuple(f"class{label:0{digits}}" for label in range(self._num_classes)),
            title="Synthetic",
        )

    def _draw(self, stream: int, patterns: np.ndarray, *, per_class: int) -> Labelled:
        shape = (self._num_classes, per_class, *patterns.shape[1:])
        images = self._bytes(stream, shape)
        # In 1/256ths, class by class: integer arithmetic, and no copy of the set in a wider type.
        share = round(self._noise * 256)
        for pattern, own in zip(patterns.astype(np.uint32), images, strict=True):
            own[:] = (own * np.uint32(share) + pattern * (256 - share)) >> 8
        targets = torch.arange(self._num_classes).repeat_interleave(per_class)
        return Labelled(torch.from_numpy(images).flatten(0, 1), targets)

    def _bytes(self, stream: int, shape: tuple[int, ...]) -> np.ndarray:
        num = int(np.prod(shape))
        bits = np.random.PCG64(np.random.SeedSequence([self._seed, stream]))
        drawn = bits.random_raw(-(-num // 8)).astype("<u8").view(np.uint8)
        return drawn[:num].reshape(shape)
