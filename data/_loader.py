"""The loader: normalised batches on the device, from memory or from disk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from data._augment import Augment, Offsets, augment_batch, draw_offsets
from data._base import DataError, Interpolation, Split, image_shape
from data._class_index import occurrences
from data._prepared import Batches, PreparedImages, Request

_LARGE = 30_000  # values of an image from which on a CPU normalises one by one faster
_REPEAT_SHIFT = 40  # a draw's number goes above the image's position in the hashed key
# Batches whose augmentation is drawn together: a GPU waits once for them, and the first of a long
# epoch do not wait for the last.
_DRAWN_AT_ONCE = 1000


class Batch(NamedTuple):
    """One batch on the device.

    Args:
        images: float32 (B, C, H, W), normalised; or what a backbone made of them, (B, D).
        targets: int64 (B,).
        index: int64 (B,), position of each image in the split.
        is_spare: Whether another process has these images, too: a batch with fewer images than
            there are processes gives its first one to those without any.
    """

    images: Tensor
    targets: Tensor
    index: Tensor  # type: ignore[assignment]  # the field's word hides tuple.index
    is_spare: bool = False


class Loader:
    """Serves the batches of an epoch as a function of the drawn positions, seed and epoch.

    Augmentation of an image is a function of (seed, epoch, its position in the pool) and, where
    a sampler draws it more than once, of the number of the draw: batch size, number of workers,
    the place where images live and a resume in mid-epoch leave it alone. With a fixed number of
    views it is a function of (seed, view, its position in the pool).

    Args:
        split: Images and targets.
        batch_size: Images of a batch; the last one of an epoch may be smaller, or larger (see
            ``smallest_share``).
        mean: Per-channel mean in [0, 1].
        std: Per-channel standard deviation in [0, 1].
        device: Where batches go. Images in memory are kept there if they fill at most half of
            what is free.
        seed: Seed of the augmentation, >= 0.
        augment: Augmentation, None for none.
        interpolation: How random crops are resized.
        workers: Processes that decode images on disk and augment image by image; all else needs
            none. They start with the first epoch and stay until :meth:`close`.
        rank: Which of the processes that share every batch this one is.
        world: How many share it: each has rows rank, rank + world ... of the batch.
        smallest_share: Images of the last batch that every process must get; where there are too
            few for that, they join the batch before. 0 keeps the last batch as it is. Training
            asks for 2: batch normalisation has no statistics of one image.

    Raises:
        DataError: If the augmentation does not fit the images.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
        seed: int,
        augment: Augment | None = None,
        interpolation: Interpolation = "bilinear",
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        smallest_share: int = 0,
    ) -> None:
        self.batch_size = batch_size
        self.rank, self._world = rank, world
        self._smallest = smallest_share * world
        self.device = device
        self._seed = seed
        self._augment = augment or Augment()
        self._workers = workers
        self._interpolation: Interpolation = interpolation
        self._images = split.trained_on(whole=self._augment.resized_crop > 0)
        self._check_augment()
        if isinstance(self._images, Tensor) and not self._augment.is_by_image:
            self._images = _near(self._images, device)
        self._batches: Batches | None = None
        self.targets = split.targets.to(device)
        self._pool_index = split.index
        means = torch.tensor(mean, dtype=torch.float64, device=device)[:, None, None]
        stds = torch.tensor(std, dtype=torch.float64, device=device)[:, None, None]
        self._scale = (1 / (255 * stds)).float()
        self._shift = (-means / stds).float()
        self._fill = (255 * means).round().to(torch.uint8).flatten()

    def close(self) -> None:
        """End the worker processes; another epoch would start them anew."""
        self._batches = None

    def num_batches(self, num_positions: int) -> int:
        """Return how many batches an epoch of ``num_positions`` has."""
        return len(self.batch_sizes(num_positions))

    def batch_sizes(self, num_positions: int) -> list[int]:
        """Return how many images each batch of an epoch of ``num_positions`` has."""
        num_full, rest = divmod(num_positions, self.batch_size)
        sizes = [self.batch_size] * num_full
        if num_full and 0 < rest < self._smallest:
            sizes[-1] += rest
        elif rest:
            sizes.append(rest)
        return sizes

    def own_batch_sizes(self, num_positions: int) -> list[int]:
        """Return how many of them this process has in each batch."""
        sizes = self.batch_sizes(num_positions)
        return [max(len(range(self.rank, size, self._world)), 1) for size in sizes]

    def draws(self, positions: Tensor, *, epoch: int) -> Tensor:
        """Return the number (M,) of each draw among those of its image; 0 without augmentation.

        It is counted within an epoch, or is the number of the view where these are fixed.
        """
        if not self._augment:
            return torch.zeros_like(positions)
        repeats = occurrences(positions)
        views = self._augment.views
        return repeats if views is None else (epoch + repeats) % views

    def epoch(self, positions: Tensor, *, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Args:
            positions: (M,) int64, positions in the split, in the order they are served.
            epoch: Number of the epoch, for the augmentation.
            start: Batches that are done already; those that follow are the same as without it.

        Raises:
            DataError: If an image on disk cannot be decoded.
        """
        keys = self._pool_index[positions] + (self.draws(positions, epoch=epoch) << _REPEAT_SHIFT)
        if self._augment.views is not None:
            epoch = 0  # what is drawn goes by the view alone
        sizes = self.batch_sizes(len(positions))
        done, sizes = sum(sizes[:start]), sizes[start:]
        positions, keys = positions[done:], keys[done:]
        rows = positions.split(sizes)
        # Copied at once: a copy for each batch would make every step wait for the device.
        near_rows = self.own(positions.to(self.device).split(sizes))
        offsets = self._offsets(keys.to(self.device), sizes=sizes, epoch=epoch)
        if isinstance(self._images, Tensor) and not self._augment.is_by_image:
            raw = self._stored_batches(self._images, rows, near_rows)
        else:
            raw = self._prepared_batches(self.own(rows), self.own(keys.split(sizes)), epoch=epoch)
        for whole, index, drawn, images in zip(rows, near_rows, offsets, raw, strict=True):
            images = images.to(self.device, non_blocking=True)
            augmented = self._augmented(images, drawn)
            is_spare = len(whole) <= self.rank
            yield Batch(self._normalised(augmented), self.targets[index], index, is_spare)

    def _offsets(self, keys: Tensor, *, sizes: list[int], epoch: int) -> Iterator[Offsets | None]:
        """Yield what is drawn for each of this process's batches."""
        if not self._augment:
            yield from [None] * len(sizes)
            return
        height, width = image_shape(self._images)[1:]
        blocks = [sizes[i : i + _DRAWN_AT_ONCE] for i in range(0, len(sizes), _DRAWN_AT_ONCE)]
        for block, own in zip(keys.split([sum(own) for own in blocks]), blocks, strict=True):
            drawn = draw_offsets(
                block,
                seed=self._seed,
                epoch=epoch,
                crop=self._augment.crop,
                height=height,
                width=width,
            )
            of_batches = (self.own(values.split(own)) for values in drawn)
            yield from (Offsets(*values) for values in zip(*of_batches, strict=True))

    def own(self, rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return this process's rows of each batch."""
        if self._world == 1:
            return rows
        return tuple(
            row[self.rank :: self._world] if len(row) > self.rank else row[:1] for row in rows
        )

    def _stored_batches(
        self, images: Tensor, rows: tuple[Tensor, ...], near_rows: tuple[Tensor, ...]
    ) -> Iterator[Tensor]:
        """Yield uint8 (B, C, H, W) of images in memory, from where they are."""
        where = near_rows if images.device == self.targets.device else self.own(rows)
        for batch in where:
            yield images.index_select(0, batch)

    def _prepared_batches(
        self, rows: tuple[Tensor, ...], keys: tuple[Tensor, ...], *, epoch: int
    ) -> Iterator[Tensor]:
        """Yield uint8 (B, C, H, W) of images on disk, or with augmentation image by image."""
        if self._batches is None:
            self._batches = Batches(
                PreparedImages(
                    self._images,
                    self._augment,
                    seed=self._seed,
                    interpolation=self._interpolation,
                ),
                workers=self._workers,
                pin_memory=self.device.type == "cuda",
                seed=self._seed,
            )
        requests = [
            Request(epoch, row.numpy(), key.numpy()) for row, key in zip(rows, keys, strict=True)
        ]
        yield from self._batches.epoch(requests)

    def _augmented(self, images: Tensor, offsets: Offsets | None) -> Tensor:
        if offsets is None:
            return images
        return augment_batch(
            images,
            offsets,
            crop=self._augment.crop,
            flip=self._augment.flip,
            cutout=self._augment.cutout,
            fill=self._fill,
        )

    def _normalised(self, images: Tensor) -> Tensor:
        if math.prod(images.shape[1:]) < _LARGE or not images.is_cpu:
            return images.to(torch.float32).mul_(self._scale).add_(self._shift)
        whole = torch.empty(images.shape)
        for row, image in zip(whole, images, strict=True):  # stays in the processor's cache
            row.copy_(image).mul_(self._scale).add_(self._shift)
        return whole

    def _check_augment(self) -> None:
        channels, *sides = image_shape(self._images)
        colour = {"policy": self._augment.policy, "color_jitter": self._augment.color_jitter}
        for key, value in colour.items():
            if value not in ("none", 0) and channels not in (1, 3):
                raise DataError(
                    f"data.augment.{key}={value}: needs images of 1 (grey) or 3 (RGB) channels, "
                    f"these have {channels}; leave it out"
                )
        side = min(sides)
        for key in ("crop", "cutout"):
            if getattr(self._augment, key) >= side:
                raise DataError(
                    f"data.augment.{key}={getattr(self._augment, key)} must be smaller than the "
                    f"images, whose shorter side has {side} pixels"
                )


def _near(images: Tensor, device: torch.device) -> Tensor:
    """Return ``images`` on ``device`` if they fill at most half of its free memory."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if images.nbytes > free // 2:
            return images
    return images.to(device)
