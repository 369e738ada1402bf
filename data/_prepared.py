"""Batches that worker processes make: decoded from disk, or augmented image by image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from data._augment import Augment
from data._base import DataError, DiskImages, Images, Interpolation, image_shape
from data._decode_part import Part, decode_part
from data._transforms import ImageTransform


class Request(NamedTuple):
    """A batch that is asked for.

    Args:
        epoch: Number of the epoch.
        positions: (B,) int64, positions of its images.
        keys: (B,) int64, what each image's augmentation is drawn by.
    """

    epoch: int
    positions: np.ndarray
    keys: np.ndarray


class PreparedImages(Dataset[Tensor | DataError]):
    """Decodes and augments a whole batch at once; runs in the worker processes.

    Args:
        images: On disk, or in memory.
        augment: Augmentation, of which that is made here which works image by image.
        seed: Seed of the augmentation.
        interpolation: How random crops are resized.
    """

    def __init__(
        self, images: Images, augment: Augment, *, seed: int, interpolation: Interpolation
    ) -> None:
        self._images, self._augment, self._seed = images, augment, seed
        self._interpolation = interpolation
        self._takes_whole = augment.resized_crop > 0
        self._transform: ImageTransform | None = None
        self._epoch: int | None = None

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, request: Request) -> Tensor | DataError:
        from data._decode import quiet_pillow

        if self._augment.is_by_image and self._epoch != request.epoch:
            self._epoch = request.epoch
            self._transform = ImageTransform(
                self._augment,
                shape=image_shape(self._images),
                seed=self._seed,
                epoch=request.epoch,
                interpolation=self._interpolation,
            )
        pairs = zip(request.positions.tolist(), request.keys.tolist(), strict=True)
        batch = _room((len(request.positions), *image_shape(self._images)))
        rows = batch.numpy()
        # Returned, not raised: DataLoader would wrap the one line in a worker's traceback.
        try:
            with quiet_pillow():
                for row, (position, key) in enumerate(pairs):
                    rows[row] = self._image(position, key).numpy()
        except DataError as error:
            return error
        return batch

    def _image(self, position: int, key: int) -> Tensor:
        transform = self._transform
        if isinstance(self._images, DiskImages) and transform is not None and self._takes_whole:
            return transform.of_part(self._part(self._images, transform, position, key), key)
        image = self._stored(position)
        return image if transform is None else transform(image, key)

    def _part(self, images: DiskImages, transform: ImageTransform, position: int, key: int) -> Part:
        return decode_part(
            images.path(position),
            lambda whole: transform.box(whole, key),
            exif_orientation=images.decoding.exif_orientation,
            grey_bits=images.decoding.grey_bits,
        )

    def _stored(self, position: int) -> Tensor:
        if isinstance(self._images, Tensor):
            return self._images[position]
        from data._decode import decode

        path = self._images.path(position)
        image = decode(path, **vars(self._images.decoding))
        if tuple(image.shape) != self._images.shape:
            raise DataError(f"{path} has changed its size since it was listed")
        return image


class Batches:
    """Makes batches in worker processes, which are started once and wait between epochs.

    Args:
        images: What makes one batch of a request.
        workers: Number of processes; 0 makes the batches here.
        pin_memory: Put batches where a GPU fetches them faster.
        seed: Of DataLoader's own generator, which decides nothing.
    """

    def __init__(
        self, images: PreparedImages, *, workers: int, pin_memory: bool, seed: int
    ) -> None:
        self._requests = _Requests()
        # A generator of its own: without one DataLoader draws from torch's global generator.
        self._loader: DataLoader[Tensor | DataError] = DataLoader(
            images,
            batch_size=None,
            sampler=self._requests,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=_as_is,
            pin_memory=pin_memory,
            generator=torch.Generator().manual_seed(seed),
        )

    def epoch(self, requests: Sequence[Request]) -> Iterator[Tensor]:
        """Yield uint8 (B, C, H, W) for each request, in their order.

        It ends the epoch before, should that still be under way: the workers serve one at a time.

        Raises:
            DataError: If an image on disk cannot be decoded.
        """
        self._requests.waiting = requests
        for images in self._loader:
            if self._requests.waiting is not requests:
                raise RuntimeError("another epoch of this loader has begun")
            if isinstance(images, DataError):
                raise images
            yield images


def _room(shape: tuple[int, ...]) -> Tensor:
    """Return room for a batch; a worker's is shared with the main process, which saves a copy."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # as torch's own collation does
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


class _Requests(Sampler[Any]):
    """What the workers are asked for, in an epoch."""

    def __init__(self) -> None:
        self.waiting: Sequence[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.waiting)

    def __len__(self) -> int:
        return len(self.waiting)


def _as_is(batch: Any) -> Any:
    """Collate nothing: the data set makes whole batches, or an error in place of one."""
    return batch
