"""Decoding of the part of an image file that a random crop shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import get_worker_info

from data._base import DEEPEST, Size
from data._decode import decode
from data._jpeg import decode_upper_rows, frame_of, is_fast, read_jpeg


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: Tensor) -> Tensor:
        """Return this part of an image (C, H, W), a view."""
        rows = slice(self.top, self.top + self.height)
        return image[:, rows, self.left : self.left + self.width]


class Part(NamedTuple):
    """Pixels (C, height, width) of a part of an image, and the size of the whole."""

    pixels: Tensor
    whole: Size


def decode_part(
    path: Path,
    choose: Callable[[Size], Box],
    *,
    exif_orientation: bool = False,
    grey_bits: int = DEEPEST,
) -> Part:
    """Decode the part of an image file that is chosen once its size is known.

    In a worker process of a loader, the rows below the part are not decoded where the file is a
    usual JPEG, not progressive, and shown as stored (without ``exif_orientation``).

    Args:
        path: The file.
        choose: Returns the part of an image of this size, always the same.
        exif_orientation: As for :func:`data.decode`.
        grey_bits: As for :func:`data.decode`.

    Returns:
        The pixels that :func:`data.decode` has there.

    Raises:
        DataError: As for :func:`data.decode`.
    """
    # Elsewhere several threads may decode at once, which decode_upper_rows() is not made for.
    if get_worker_info() is not None and not exif_orientation:
        part = _part_of_jpeg(path, choose)
        if part is not None:
            return part
    image = decode(path, size=None, exif_orientation=exif_orientation, grey_bits=grey_bits)
    whole = Size(*image.shape[1:])
    return Part(choose(whole).of(image), whole)


def _part_of_jpeg(path: Path, choose: Callable[[Size], Box]) -> Part | None:
    """Decode the part of a usual JPEG that libjpeg can read; None for all others."""
    from PIL import Image

    try:
        content = read_jpeg(path)
    except OSError:
        return None
    frame = None if content is None else frame_of(content)
    if content is None or frame is None or not frame.is_sequential:
        return None
    if not is_fast(frame, most_pixels=Image.MAX_IMAGE_PIXELS):
        return None
    box = choose(frame.size)
    upper = decode_upper_rows(content, frame, rows=box.top + box.height)
    return None if upper is None else Part(box.of(upper), frame.size)
