"""Weights by the effective number of samples."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from ._base import Scheme


class EffectiveNumber(Scheme):
    """Weight (1 - beta) / (1 - beta^n) of a class of n training images (Cui et al. 2019, eq. 2).

    From "Class-Balanced Loss Based on Effective Number of Samples".

    Args:
        beta: From no weighting at 0 to the limit of 1/n at 1.

    Raises:
        ValueError: For a beta outside 0 to 1.
    """

    def __init__(self, *, beta: Annotated[float, Interval(ge=0, le=1)] = 0.9999) -> None:
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must lie in 0 to 1, not {beta}")
        self.beta = beta

    def log_weights(self, counts: Tensor) -> Tensor:
        """Return -log(1 - beta^n), the constant 1 - beta left out."""
        if self.beta == 1:
            return -counts.log()
        log_beta = math.log(self.beta) if self.beta > 0 else -math.inf
        return -torch.log(-torch.expm1(counts * log_beta))
