"""Weights as they are listed."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from ._base import Scheme


class Explicit(Scheme):
    """The weights as they are listed, but 0 for a class without training images.

    Args:
        weights: The weight of each class, in label order.

    Raises:
        ValueError: For weights that are not C finite numbers that are not negative.
    """

    required: ClassVar[tuple[str, ...]] = ("weights",)

    def __init__(self, *, weights: tuple[Annotated[float, Ge(0)], ...] | None = None) -> None:
        self.weights = torch.as_tensor(() if weights is None else weights, dtype=torch.float64)

    def __call__(self, counts: Tensor) -> Tensor:
        """Return the weights, and 0 where the count is 0."""
        found = self.weights
        if found.shape != counts.shape:
            asked = f"{len(counts)} numbers, one a class"
            raise ValueError(f"weights must be {asked}, not {len(found)}")
        if not bool((torch.isfinite(found) & (found >= 0)).all()):
            raise ValueError("weights must be finite numbers that are not negative")
        return torch.where(counts > 0, found, 0.0)
