"""Models with the heads of ``models/heads``, built as a run builds them."""

from __future__ import annotations

import functools
from typing import Any

import models
from engine.config import components


def build(name: str, *, head: str = "linear", **options: Any) -> models.Classifier:
    """A classifier of :func:`models.build` with the head of that name."""
    make = functools.partial(components.build, "models.heads", head, {})
    return models.build(name, head=make, **options)
