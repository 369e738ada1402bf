"""Decoding of one image file to 8-bit RGB."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data._base import DataError, ImageShape

if TYPE_CHECKING:
    from PIL.Image import Image

DECODER_VERSION = 1  # raise it when decode() returns other pixels, so that caches are made anew
DEEPEST = 16  # bits of the deepest greyscale that is taken
_SAMPLE_FORMAT, _SIGNED = 339, 2  # TIFF 6.0, section 19
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def decode(path: Path, *, size: int | None, grey_bits: int = DEEPEST) -> Tensor:
    """Decode an image file to uint8 (3, H, W).

    Greyscale is repeated over three channels; 16-bit greyscale (PNG, TIFF, PGM) keeps the upper 8
    of the bits in use; palette, CMYK and other colour spaces are converted as Pillow does;
    transparency is laid over white. Of an animation or a file of several pages it is the first.
    Pixels stay as stored: an EXIF orientation is not applied, as in torchvision's ImageFolder.

    Args:
        path: The file.
        size: The shorter side is resized to it (bilinear, antialiased) and the centre square
            kept; None keeps the image as it is.
        grey_bits: Bits in use of 16-bit greyscale, 8 to 16.

    Raises:
        DataError: Naming the file, if it is truncated, no image, of a pixel format that has no
            agreed 8-bit form (signed, 32-bit integer or floating point), or has grey values
            beyond ``grey_bits``.
    """
    from PIL import Image

    with _named(path), Image.open(path) as stored:
        image = _to_rgb(stored, path, grey_bits=grey_bits)
    if size is not None and image.size != (size, size):
        from torchvision.transforms.v2 import functional as transforms

        image = transforms.resize(image, [size], antialias=True)
        image = transforms.center_crop(image, [size, size])
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def decode_grey(path: Path) -> np.ndarray:
    """Decode an image file to 8-bit grey, uint8 (H, W); colour is weighed as Pillow does.

    Raises:
        DataError: Naming the file, if it is truncated, no image, or deeper than 8 bits.
    """
    from PIL import Image

    with _named(path), Image.open(path) as stored:
        if stored.mode not in ("L", "RGB"):
            raise DataError(f"{path} has the pixel format {stored.mode}: expected 8-bit grey")
        return np.asarray(stored.convert("L"))


def stored_shape(path: Path) -> ImageShape:
    """Read the shape an image file decodes to from its header.

    Raises:
        DataError: Naming the file, if it is no image.
    """
    from PIL import Image

    with _named(path), Image.open(path) as stored:
        return ImageShape(3, stored.height, stored.width)


def largest_grey(path: Path) -> int | None:
    """Return the largest value of a 16-bit greyscale file, None for any other image.

    Raises:
        DataError: Naming the file, if it cannot be read.
    """
    from PIL import Image

    with _named(path), Image.open(path) as stored:
        return int(np.asarray(stored).max()) if _is_deep_grey(stored) else None


def is_deep_grey(path: Path) -> bool:
    """Return whether a file is 16-bit greyscale, by its header.

    Raises:
        DataError: Naming the file, if it is no image.
    """
    from PIL import Image

    with _named(path), Image.open(path) as stored:
        return _is_deep_grey(stored)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about large photos and damaged EXIF data.

    Images of more than twice the size it warns at stay errors. Enter it in one thread and
    around all others: the filters of warnings belong to the process.
    """
    from PIL import Image

    with warnings.catch_warnings():
        for category in (Image.DecompressionBombWarning, UserWarning):
            warnings.filterwarnings("ignore", category=category, module=r"PIL\.")
        yield


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn what Pillow raises over a file into one line that names it."""
    from PIL import Image

    try:
        yield
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path} has more pixels than Pillow opens ({2 * (Image.MAX_IMAGE_PIXELS or 0)}): "
            "shrink it or remove it"
        ) from error
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{path} cannot be read as an image ({reason}): replace it or remove it"
        ) from error


def _to_rgb(image: Image, path: Path, *, grey_bits: int) -> Image:
    from PIL import Image as Images

    if _is_signed(image):
        raise _formless(path, "signed values")
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()  # convert() would copy it
        return image
    if _is_deep_grey(image):
        values = np.asarray(image)
        if grey_bits < DEEPEST and int(values.max()) >> grey_bits:
            raise DataError(
                f"{path} has the grey value {values.max()}, beyond data.grey_bits={grey_bits}: "
                "raise it"
            )
        return Images.fromarray((values >> (grey_bits - 8)).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise _formless(path, {"I": "32-bit integers", "F": "floating-point values"}[image.mode])
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        background = Images.new("RGBA", colours.size, "white")
        return Images.alpha_composite(background, colours).convert("RGB")
    return image.convert("RGB")


def _is_deep_grey(image: Image) -> bool:
    """Return whether an image is 16-bit greyscale; Pillow opens such a PGM with 32 bits."""
    is_deep = image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I")
    return is_deep and not _is_signed(image)


def _is_signed(image: Image) -> bool:
    """Return whether a TIFF has signed integers, which Pillow shows in 32 bits or as unsigned."""
    formats = getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, ())
    return _SIGNED in (formats if isinstance(formats, tuple) else (formats,))


def _formless(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} has {what}, which have no agreed 8-bit form: convert it to 8-bit or unsigned "
        "16-bit greyscale, or to RGB"
    )


class FileFact(NamedTuple):
    """What an image file is."""

    format: str
    mode: str
    width: int
    height: int
    num_bytes: int


def file_fact(path: Path) -> FileFact | str:
    """Return what an image file is, having decoded it; a line that names it where that fails."""
    from PIL import Image

    try:
        with _named(path), Image.open(path) as stored:
            kind, mode, (width, height) = stored.format or "?", stored.mode, stored.size
            stored.load()
        return FileFact(kind, mode, width, height, path.stat().st_size)
    except DataError as error:
        return str(error)
