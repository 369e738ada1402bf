"""Models: a timm backbone, a head, and the two together as a `Classifier`."""

from __future__ import annotations

from ._backbone import ModelError, Normalization, normalization, source_weights
from ._classifier import Classifier, Output, build
from ._layers import layers_of
from ._text import text_directions
from .tuning._base import is_added
from .tuning._merging import merged

__all__ = [
    "Classifier",
    "ModelError",
    "Normalization",
    "Output",
    "build",
    "is_added",
    "layers_of",
    "merged",
    "normalization",
    "source_weights",
    "text_directions",
]
