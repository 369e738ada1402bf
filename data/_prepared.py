"""Batches that worker processes make: decoded from disk, or augmented image by image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from data._base import DataError, Images
from data._transforms import ImageTransform


class PreparedImages(Dataset[Tensor]):
    """Decodes and augments a whole batch at once; runs in the worker processes.

    Args:
        images: On disk, or in memory.
        transform: Augmentation image by image, None for none.
        takes_whole: Whether the transform wants files as they are, before they are resized.
    """

    def __init__(
        self, images: Images, transform: ImageTransform | None, *, takes_whole: bool
    ) -> None:
        self._images, self._transform, self._takes_whole = images, transform, takes_whole

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, drawn: tuple[int, int]) -> Tensor:
        position, key = drawn
        image = self._stored(position)
        return image if self._transform is None else self._transform(image, key)

    def __getitems__(self, drawn: list[tuple[int, int]]) -> Tensor | DataError:
        from data._decode import quiet_pillow

        # Returned, not raised: DataLoader would wrap the one line in a worker's traceback.
        try:
            with quiet_pillow():
                return torch.stack([self[one] for one in drawn])
        except DataError as error:
            return error

    def _stored(self, position: int) -> Tensor:
        if isinstance(self._images, Tensor):
            return self._images[position]
        from data._decode import decode

        path = self._images.path(position)
        size = None if self._takes_whole else self._images.size
        image = decode(path, size=size, grey_bits=self._images.grey_bits)
        if tuple(image.shape) != self._images.shape and not self._takes_whole:
            raise DataError(f"{path} has changed its size since it was listed")
        return image


def as_is(batch: Any) -> Any:
    """Collate nothing: the data set makes whole batches, or an error in place of one."""
    return batch
