"""Decoding of one image file to 8-bit RGB."""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data._base import DEEPEST, DataError, ImageShape, Interpolation, Size
from data._jpeg import decode_jpeg, read_jpeg

if TYPE_CHECKING:
    from PIL.Image import Image

DECODER_VERSION = 1  # raise it when decode() returns other pixels, so that caches are made anew
_SAMPLE_FORMAT, _SIGNED = 339, 2  # TIFF 6.0, section 19
_ORIENTATION = 274  # Exif 2.32, section 4.6.4
_FIRST_ON_ITS_SIDE = 5  # orientations from 5 to 8 swap height and width
_MIRRORED = {1: (3, 4, 7, 8), 2: (2, 3, 6, 7)}  # by axis, after the swap
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def decoder_versions() -> str:
    """Return the versions of all that turns files into pixels, for the names of cache entries."""
    import PIL

    return f"{DECODER_VERSION} {PIL.__version__} {version('torchvision')}"


def decode(
    path: Path,
    *,
    size: int | tuple[int, int] | None,
    crop_ratio: float = 1.0,
    interpolation: Interpolation = "bilinear",
    exif_orientation: bool = False,
    grey_bits: int = DEEPEST,
) -> Tensor:
    """Decode an image file to uint8 (3, H, W).

    Greyscale is repeated over three channels; 16-bit greyscale (PNG, TIFF, PGM) keeps the upper 8
    of the bits in use; palette, CMYK and other colour spaces are converted as Pillow does;
    transparency is laid over white. Of an animation or a file of several pages it is the first.

    Args:
        path: The file.
        size: Height and width, or the side of a square: the image is resized (antialiased) until
            it just covers ``size / crop_ratio``, and the centre is kept. None keeps the image as
            it is.
        crop_ratio: Share of the resized image that the centre has, side by side, as timm's
            ``crop_pct``: 0.875 is 224 of 256.
        interpolation: How it is resized.
        exif_orientation: Turn and mirror the image as its EXIF data say. Without, pixels stay as
            stored, as in torchvision's ImageFolder.
        grey_bits: Bits in use of 16-bit greyscale, 8 to 16.

    Raises:
        DataError: Naming the file, if it is truncated, no image, of a pixel format that has no
            agreed 8-bit form (signed, 32-bit integer or floating point), or has grey values
            beyond ``grey_bits``.
    """
    with _named(path):
        pixels = _usual_jpeg(path, exif_orientation=exif_orientation)
    if pixels is None:
        pixels = _by_pillow(path, exif_orientation=exif_orientation, grey_bits=grey_bits)
    if size is None:
        return pixels
    wanted = Size(size, size) if isinstance(size, int) else Size(*size)
    return _fitted(pixels, wanted, crop_ratio=crop_ratio, interpolation=interpolation)


def _usual_jpeg(path: Path, *, exif_orientation: bool) -> Tensor | None:
    """Decode the usual kind of JPEG, of which photographs are; None for any other file."""
    from PIL import Image

    content = read_jpeg(path)
    if content is None:
        return None
    pixels = decode_jpeg(content, most_pixels=Image.MAX_IMAGE_PIXELS)
    if pixels is None or not exif_orientation:
        return pixels
    with Image.open(io.BytesIO(content)) as stored:
        return _turned(pixels, _orientation(stored))


def _by_pillow(path: Path, *, exif_orientation: bool, grey_bits: int) -> Tensor:
    from PIL import Image

    with _named(path), Image.open(path) as stored:
        image = _to_rgb(stored, path, grey_bits=grey_bits)
        orientation = _orientation(stored) if exif_orientation else 1
    return _turned(_pixels(image), orientation)


def _fitted(
    pixels: Tensor, size: Size, *, crop_ratio: float, interpolation: Interpolation
) -> Tensor:
    """Resize to just cover ``size / crop_ratio`` and keep the centre; by Pillow."""
    from PIL import Image
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    height, width = pixels.shape[1:]
    if (height, width) == size and crop_ratio == 1:
        return pixels
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    least = Size(*(math.floor(side / crop_ratio) for side in size))
    covering = [least.height, least.height * width // height]
    if covering[1] < least.width:
        covering = [least.width * height // width, least.width]
    image = transforms.resize(image, covering, InterpolationMode(interpolation), antialias=True)
    return _pixels(transforms.center_crop(image, list(size)))


def _pixels(image: Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())


def _orientation(stored: Image) -> int:
    """Return the EXIF orientation, 1 to 8; Pillow has applied that of a TIFF file already."""
    found = 1 if stored.format == "TIFF" else stored.getexif().get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def _turned(pixels: Tensor, orientation: int) -> Tensor:
    """Bring pixels (C, H, W) of an EXIF orientation upright (Exif 2.32, section 4.6.4)."""
    if orientation >= _FIRST_ON_ITS_SIDE:
        pixels = pixels.transpose(1, 2)
    mirrored = [axis for axis in (1, 2) if orientation in _MIRRORED[axis]]
    return pixels.flip(mirrored) if mirrored else pixels


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


def stored_shape(path: Path, *, exif_orientation: bool = False) -> ImageShape:
    """Read the shape an image file decodes to from its header.

    Args:
        path: The file.
        exif_orientation: As for :func:`decode`.

    Raises:
        DataError: Naming the file, if it is no image.
    """
    from PIL import Image

    with _named(path), Image.open(path) as stored:
        if exif_orientation and _orientation(stored) >= _FIRST_ON_ITS_SIDE:
            return ImageShape(3, stored.width, stored.height)
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
        raise DataError(
            f"{path} cannot be read as an image ({_reason(error, path)}): replace it or remove it"
        ) from error


def _reason(error: Exception, path: Path) -> str:
    """Return why a file cannot be read, without its path."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is empty" if path.stat().st_size == 0 else "it has no known image format"
    of_system = error.strerror if isinstance(error, OSError) else None
    return of_system or str(error).partition("\n")[0] or type(error).__name__


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


def file_fact(path: Path, *, grey_bits: int = DEEPEST) -> FileFact | str:
    """Return what an image file is, having decoded it; a line that names it where that fails.

    Args:
        path: The file.
        grey_bits: As for :func:`decode`.
    """
    from PIL import Image

    try:
        with _named(path), Image.open(path) as stored:
            kind, mode, (width, height) = stored.format or "?", stored.mode, stored.size
            _to_rgb(stored, path, grey_bits=grey_bits)
        return FileFact(kind, mode, width, height, path.stat().st_size)
    except DataError as error:
        return str(error)
