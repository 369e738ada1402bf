"""The head of learnable weight scaling, a second stage."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


class LearnableScaling(nn.Linear):
    """The linear head of another run at rest, each of its logits times a number that is trained.

    Learnable weight scaling (Kang et al. 2020, "Decoupling Representation and Classifier for
    Long-Tailed Recognition", sec. 4.2): f_c (w_c . x + b_c), where f starts at 1. As in the
    authors' code the bias is scaled too.

    Args:
        num_features: D.
        num_outputs: Number of logits.
    """

    gives_cosines: ClassVar[bool] = False
    starts_anew: ClassVar[tuple[str, ...]] = ("scale",)

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__(num_features, num_outputs)
        self.requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(num_outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Return the scaled logits (N, num_outputs) of features (N, D)."""
        return self.scale * super().forward(features)
