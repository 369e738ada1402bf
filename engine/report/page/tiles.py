"""Small pictures inside a page: the images on which a run was wrong and most confident."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from engine.config.messages import one_line
from engine.report.reading import Predictions

SHOWN = 20
SIDE = 112  # pixels of the longer side; smaller images stay as they are


Images = Any
"""Images of a split: a uint8 tensor (N, C, H, W), or what knows the file of each position."""


class Tile(NamedTuple):
    """A picture as a data URI, with what it is and what it was taken for."""

    source: str
    true: str
    predicted: str
    probability: float
    name: str


def most_confident_mistakes(said: Predictions, images: Images) -> Iterator[Tile]:
    """Yield up to twenty test images that were taken for another class, the most certain first.

    An image that cannot be shown, as its file has gone or it has neither one nor three channels,
    is left out.

    Args:
        said: what the run said of the split.
        images: of the split, in its order.
    """
    predicted, top = said.rows.predictions, said.rows.confidence
    wrong = np.flatnonzero(predicted != said.targets)
    for position in wrong[np.argsort(-top[wrong], kind="stable")][:SHOWN].tolist():
        picture = _picture(images, position)
        if picture is not None:
            yield Tile(
                _data_uri(picture),
                one_line(said.class_names[said.targets[position]]),
                one_line(said.class_names[predicted[position]]),
                float(top[position]),
                name_of(images, position, number=int(said.index[position])),
            )


def _picture(images: Images, position: int) -> Image.Image | None:
    if hasattr(images, "path"):
        try:
            with Image.open(images.path(position)) as file:
                file.draft("RGB", (2 * SIDE, 2 * SIDE))
                picture = file.convert("RGB")
        except (OSError, ValueError):
            return None
    else:
        pixels = np.asarray(images[position])
        if pixels.shape[0] not in (1, 3):
            return None
        picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    picture.thumbnail((SIDE, SIDE))
    return picture


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    kind = "png" if max(picture.size) < SIDE else "jpeg"
    picture.save(buffer, format=kind)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def name_of(images: Images, position: int, *, number: int) -> str:
    """Return the file of an image with its folder, or its number in the data set's own list."""
    if hasattr(images, "path"):
        file = images.path(position)
        return one_line(f"{file.parent.name}/{file.name}")
    return f"image {number}"
