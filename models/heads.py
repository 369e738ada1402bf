"""Heads: from pooled features to logits."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LinearHead(nn.Linear):
    """Linear layer with bias: features (N, D) to logits (N, num_outputs).

    Args:
        num_features: D.
        num_outputs: Number of logits.
        init: ``default`` is torch's own initialisation, ``kaiming`` draws the weight as He et al.
            2015 do for convolutions, which is what the CIFAR ResNets of the literature use.
        prior: Probability p, strictly between 0 and 1, that every output starts from: the bias
            becomes log(p / (1 - p)). Sigmoid losses on many classes need it, as their first steps
            otherwise go into the negatives (Lin et al. 2017, sec. 4.1); p = 1/C gives -log(C - 1)
            (Cui et al. 2019). None leaves torch's own bias.
    """

    def __init__(
        self,
        num_features: int,
        num_outputs: int,
        *,
        init: Literal["default", "kaiming"] = "default",
        prior: float | None = None,
    ) -> None:
        super().__init__(num_features, num_outputs)
        if init == "kaiming":
            nn.init.kaiming_normal_(self.weight)
        if prior is not None:
            nn.init.constant_(self.bias, math.log(prior) - math.log1p(-prior))


class CosineHead(nn.Module):
    """Cosine between features (N, D) and the weight of each output: logits (N, num_outputs).

    The logits lie in -1 to 1: the scale is exactly 1, and a loss that wants another multiplies by
    its own. There is no bias. The weight starts uniform in -1 to 1 with every output's row scaled
    to length 1, as the normalised layer of LDAM (Cao et al. 2019, "Learning Imbalanced Datasets
    with Label-Distribution-Aware Margin Loss"). Features of length 0 give logits of 0.

    Args:
        num_features: D.
        num_outputs: Number of logits.
    """

    # Shorter vectors are not stretched to length 1: the gradient of normalising is 1 / length, and
    # torch's own limit of 1e-12 would let it grow far beyond what a step survives.
    shortest = 1e-6

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()
        weight = torch.empty(num_outputs, num_features).uniform_(-1, 1)
        self.weight = nn.Parameter(F.normalize(weight, dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the cosines, in the weight's precision also under autocast.

        A loss multiplies them by a scale, and with it their rounding.
        """
        with torch.autocast(features.device.type, enabled=False):
            directions = F.normalize(features.to(self.weight.dtype), dim=1, eps=self.shortest)
            return F.linear(directions, F.normalize(self.weight, dim=1, eps=self.shortest))
