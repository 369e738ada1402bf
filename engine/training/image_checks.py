"""Checks of images given to a trained model, and the messages when they do not fit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def brightest(images: Tensor, *, shape: Sequence[int], max_value: float | None) -> float:
    """Check images, and return the value that stands for full brightness in them.

    Args:
        images: (N, channels, height, width).
        shape: (channels, height, width) that the model was trained on.
        max_value: full brightness in float images; uint8 images have 255.

    Raises:
        TypeError: they are not a tensor.
        ValueError: their shape, their type or their values do not fit; says what to do.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"images: expected a tensor, not {type(images).__name__}; {_AS_TENSOR}")
    _check_shape(tuple(images.shape), tuple(shape))
    if images.dtype == torch.uint8:
        if max_value not in (None, 255):
            raise ValueError(f"max_value={max_value:g}: uint8 images have 255; leave it out")
        return 255.0
    if not images.is_floating_point():
        raise ValueError(
            f"images: are {_name(images.dtype)}; expected uint8, or floats with max_value"
        )
    if max_value is None:
        raise ValueError(
            f"images: are {_name(images.dtype)}, whose range only you know; state max_value=1 "
            "where 0 to 1 is black to white, max_value=255 where 0 to 255 is"
        )
    if len(images) and not 0 <= images.min() <= images.max() <= max_value:
        raise ValueError(
            f"images: hold {images.min():.4g} to {images.max():.4g}, outside 0 to "
            f"max_value={max_value:g}; they must not be normalised yet"
        )
    return float(max_value)


_AS_TENSOR = "torch.from_numpy(images) makes one of an array"


def _check_shape(found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    channels, height, width = wanted
    said = f"images: have the shape {found}, expected (N, {channels}, {height}, {width})"
    if found[1:] == wanted:
        return
    if found == wanted:
        raise ValueError(f"{said}; images[None] makes a batch of one image")
    if len(found) == 4 and found[1:] == (height, width, channels):
        raise ValueError(f"{said}; images.permute(0, 3, 1, 2) moves the channels to the front")
    if len(found) == 4 and found[1] == channels:
        raise ValueError(f"{said}; resize them to {height} x {width} pixels as in training")
    raise ValueError(said)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
