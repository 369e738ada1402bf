"""Weights as they are listed."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from .._inputs import checked_values
from ._base import Scheme


class Explicit(Scheme):
    """The weights as they are listed, but 0 for a class without training images.

    Args:
        weights: The weight of each class: a list in label order, or in a config by class name, as
            in {cat: 1, dog: 3}.

    Raises:
        ValueError: For weights that are not C finite numbers, above 0 for classes with samples.
    """

    balances: ClassVar[bool] = False  # costs, perhaps: what they are for, their author knows
    follows_counts: ClassVar[bool] = False
    required: ClassVar[tuple[str, ...]] = ("weights",)

    def __init__(
        self,
        *,
        weights: tuple[Annotated[float, Ge(0)], ...]
        | dict[str, Annotated[float, Ge(0)]]
        | None = None,
    ) -> None:
        if isinstance(weights, dict):
            raise ValueError("weights by class name need a run's names: give a list in label order")
        self.weights = () if weights is None else weights

    def __call__(self, counts: Tensor) -> Tensor:
        """Return the weights, and 0 where the count is 0."""
        found = checked_values(self.weights, len(counts), name="weights").double()
        missing = torch.nonzero((found == 0) & (counts > 0)).flatten().tolist()
        if missing:
            raise ValueError(
                f"weights must be above 0 for classes with training images: class {missing[0]} has "
                f"{counts[missing[0]].item():g} and a weight of 0"
            )
        return torch.where(counts > 0, found, 0.0)
