"""The loader: normalised batches on the device, from memory or from disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data._augment import Augment, augment_batch
from data._base import DataError, DiskImages, Split, image_shape
from data._samplers import occurrences

_REPEAT_SHIFT = 40  # a draw's number goes above the image's position in the hashed key


class Batch(NamedTuple):
    """One batch on the device.

    Args:
        images: float32 (B, C, H, W), normalised.
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
    the place where images live and a resume in mid-epoch leave it alone.

    Args:
        split: Images and targets.
        batch_size: Images of a batch; the last one of an epoch may be smaller.
        mean: Per-channel mean in [0, 1].
        std: Per-channel standard deviation in [0, 1].
        device: Where batches go. Images in memory are kept there if they fill at most half of
            what is free.
        seed: Seed of the augmentation, >= 0.
        augment: Augmentation, None for none.
        workers: Processes that decode images on disk; images in memory need none.
        rank: Which of the processes that share every batch this one is.
        world: How many share it: each has rows rank, rank + world ... of the batch.

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
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.batch_size = batch_size
        self._rank, self._world = rank, world
        self._device = device
        self._seed = seed
        self._augment = augment or Augment()
        self._workers = workers
        self._check_augment(split)
        self._images = split.images
        if isinstance(split.images, Tensor) and _fits(split.images, device):
            self._images = split.images.to(device)
        self._targets = split.targets.to(device)
        self._pool_index = split.index.to(device)
        means = torch.tensor(mean, dtype=torch.float64, device=device)[:, None, None]
        stds = torch.tensor(std, dtype=torch.float64, device=device)[:, None, None]
        self._scale = (1 / (255 * stds)).float()
        self._shift = (-means / stds).float()
        self._fill = (255 * means).round().to(torch.uint8).flatten()

    def num_batches(self, num_positions: int) -> int:
        """Return how many batches an epoch of ``num_positions`` has."""
        return -(-num_positions // self.batch_size)

    def epoch(self, positions: Tensor, *, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Args:
            positions: (M,) int64, positions in the split, in the order they are served.
            epoch: Number of the epoch, for the augmentation.
            start: Batches that are done already; those that follow are the same as without it.

        Raises:
            DataError: If an image on disk cannot be decoded.
        """
        repeats = occurrences(positions) if self._augment else torch.zeros_like(positions)
        done = start * self.batch_size
        rows = positions[done:].split(self.batch_size) if done < len(positions) else ()
        times = repeats[done:].split(self.batch_size) if done < len(positions) else ()
        is_spare = [len(row) <= self._rank for row in rows]
        rows, times = self._own(rows), self._own(times)
        raw = self._raw_batches(rows)
        for batch, repeat, images, spare in zip(rows, times, raw, is_spare, strict=True):
            index = batch.to(self._device)
            key = self._pool_index[index] + (repeat.to(self._device) << _REPEAT_SHIFT)
            augmented = self._augmented(images.to(self._device), key, epoch=epoch)
            yield Batch(self._normalised(augmented), self._targets[index], index, spare)

    def _own(self, rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return this process's rows of each batch."""
        if self._world == 1:
            return rows
        return tuple(
            row[self._rank :: self._world] if len(row) > self._rank else row[:1] for row in rows
        )

    def _raw_batches(self, rows: tuple[Tensor, ...]) -> Iterator[Tensor]:
        """Yield uint8 (B, C, H, W) for each of ``rows``."""
        if isinstance(self._images, Tensor):
            for batch in rows:
                yield self._images.index_select(0, batch.to(self._images.device))
            return
        # A generator of its own: without one DataLoader draws from torch's global generator.
        for images in DataLoader(
            _Decoded(self._images),
            batch_sampler=[batch.tolist() for batch in rows],
            num_workers=self._workers,
            collate_fn=_as_is,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator().manual_seed(self._seed),
        ):
            if isinstance(images, DataError):
                raise images
            yield images

    def _augmented(self, images: Tensor, key: Tensor, *, epoch: int) -> Tensor:
        if not self._augment:
            return images
        return augment_batch(
            images,
            key,
            seed=self._seed,
            epoch=epoch,
            crop=self._augment.crop,
            flip=self._augment.flip,
            cutout=self._augment.cutout,
            fill=self._fill,
        )

    def _normalised(self, images: Tensor) -> Tensor:
        return images.to(torch.float32).mul_(self._scale).add_(self._shift)

    def _check_augment(self, split: Split) -> None:
        side = min(image_shape(split.images)[1:])
        for key in ("crop", "cutout"):
            if getattr(self._augment, key) >= side:
                raise DataError(
                    f"data.augment.{key}={getattr(self._augment, key)} must be smaller than the "
                    f"images, whose shorter side has {side} pixels"
                )


class _Decoded(Dataset[Tensor]):
    """Decodes a whole batch at once; runs in the worker processes."""

    def __init__(self, images: DiskImages) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, position: int) -> Tensor:
        from data._decode import decode

        image = decode(self._images.path(position), size=self._images.size)
        if tuple(image.shape) != self._images.shape:
            raise DataError(
                f"{self._images.path(position)} has changed its size since it was listed"
            )
        return image

    def __getitems__(self, positions: list[int]) -> Tensor | DataError:
        # Returned, not raised: DataLoader would wrap the one line in a worker's traceback.
        try:
            return torch.stack([self[position] for position in positions])
        except DataError as error:
            return error


def _as_is(batch: Any) -> Any:
    """Collate nothing: the data set makes whole batches, or an error in place of one."""
    return batch


def _fits(images: Tensor, device: torch.device) -> bool:
    """Return whether ``images`` fill at most half of the free memory of ``device``."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= free // 2
