"""The cosine head."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cosine(nn.Module):
    """Cosine between features (N, D) and the weight of each output: logits (N, num_outputs).

    The logits lie in -1 to 1: the scale is exactly 1, and a loss that wants another multiplies by
    its own. There is no bias. The weight starts uniform in -1 to 1 with every output's row scaled
    to length 1, as the normalised layer of LDAM (Cao et al. 2019, "Learning Imbalanced Datasets
    with Label-Distribution-Aware Margin Loss"). Features of length 0 give logits of 0.

    Args:
        num_features: D.
        num_outputs: Number of logits.
    """

    gives_cosines: ClassVar[bool] = True

    # Shorter vectors are not stretched to length 1: the gradient of normalising is 1 / length, and
    # torch's own limit of 1e-12 would let it grow far beyond what a step survives.
    shortest = 1e-6

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()
        weight = torch.empty(num_outputs, num_features).uniform_(-1, 1)
        self.weight = nn.Parameter(F.normalize(weight, dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the cosines."""
        directions = F.normalize(features, dim=1, eps=self.shortest)
        return F.linear(directions, F.normalize(self.weight, dim=1, eps=self.shortest))
