"""Decoding of one image file to 8-bit RGB."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from data._base import DataError, ImageShape

if TYPE_CHECKING:
    from PIL.Image import Image

DECODER_VERSION = 1  # raise it when decode() returns other pixels, so that caches are made anew
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def decode(path: Path, *, size: int | None) -> Tensor:
    """Decode an image file to uint8 (3, H, W).

    Greyscale is repeated over three channels; 16-bit greyscale keeps its upper 8 bits; palette,
    CMYK and other colour spaces are converted as Pillow does; transparency is laid over white.
    Pixels stay as stored: an EXIF orientation is not applied, as in torchvision's ImageFolder.

    Args:
        path: The file.
        size: The shorter side is resized to it (bilinear, antialiased) and the centre square
            kept; None keeps the image as it is.

    Raises:
        DataError: Naming the file, if it is truncated, no image, or of a pixel format that has
            no agreed 8-bit form (32-bit integer or floating point).
    """
    from PIL import Image

    with _named(path), Image.open(path) as stored:
        image = _to_rgb(stored, path)
    if size is not None and image.size != (size, size):
        from torchvision.transforms.v2 import functional as transforms

        image = transforms.resize(image, [size], antialias=True)
        image = transforms.center_crop(image, [size, size])
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def stored_shape(path: Path) -> ImageShape:
    """Read the shape an image file decodes to from its header.

    Raises:
        DataError: Naming the file, if it is no image.
    """
    from PIL import Image

    with _named(path), Image.open(path) as stored:
        return ImageShape(3, stored.height, stored.width)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn what Pillow raises over a file into one line that names it."""
    from PIL import Image

    try:
        yield
    except DataError:
        raise
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{path} cannot be read as an image ({reason}): replace it or remove it"
        ) from error


def _to_rgb(image: Image, path: Path) -> Image:
    from PIL import Image as Images

    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()  # convert() would copy it
        return image
    if image.mode in ("I", "F"):
        raise DataError(
            f"{path} has pixel format {image.mode} (32 bits), which has no agreed 8-bit form: "
            "convert it to 8-bit greyscale or RGB"
        )
    if image.mode.startswith("I;16"):
        return Images.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        background = Images.new("RGBA", colours.size, "white")
        return Images.alpha_composite(background, colours).convert("RGB")
    return image.convert("RGB")
