"""Small pictures inside a page: the images on which a run was wrong and most confident."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from engine.config.messages import one_line
from engine.report.reading import Predictions

SHOWN = 20
SIDE = 112  # pixels of the longer side; smaller images stay as they are


class Split(Protocol):
    """A split of the data with the names of its images."""

    @property
    def images(self) -> Any:
        """A uint8 tensor (N, C, H, W), or what knows the file of each position."""

    def file(self, position: int) -> str | None:
        """Return the file of an image; None where it has none."""

    def name(self, position: int) -> str:
        """Return the file of an image, else its number in the data set's own list."""


class Tile(NamedTuple):
    """A picture as a data URI, with what it is and what it was taken for."""

    source: str
    true: str
    predicted: str
    probability: float
    name: str


def most_confident_mistakes(said: Predictions, split: Split) -> Iterator[Tile]:
    """Yield up to twenty test images that were taken for another class, the most certain first.

    An image that cannot be shown, as its file has gone or it has neither one nor three channels,
    is left out.

    Args:
        said: what the run said of the split.
        split: the images with their names, in its order.
    """
    predicted, top = said.rows.predictions, said.rows.confidence
    wrong = np.flatnonzero(predicted != said.targets)
    for position in wrong[np.argsort(-top[wrong], kind="stable")][:SHOWN].tolist():
        picture = _picture(split.images, position)
        if picture is not None:
            yield Tile(
                _data_uri(picture),
                one_line(said.class_names[said.targets[position]]),
                one_line(said.class_names[predicted[position]]),
                float(top[position]),
                one_line(split.name(position)),
            )


def _picture(images: Any, position: int) -> Image.Image | None:
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
