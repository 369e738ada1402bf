"""Models: a timm backbone, a head, and the two together as a `Classifier`."""

from __future__ import annotations

from ._backbone import ModelError, Normalization, normalization
from ._classifier import Classifier, Output, build

__all__ = ["Classifier", "ModelError", "Normalization", "Output", "build", "normalization"]
