"""The linear head."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from torch import nn


class Linear(nn.Linear):
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

    gives_cosines: ClassVar[bool] = False

    def __init__(
        self,
        num_features: int,
        num_outputs: int,
        init: Literal["default", "kaiming"],
        prior: float | None,
    ) -> None:
        super().__init__(num_features, num_outputs)
        if init == "kaiming":
            nn.init.kaiming_normal_(self.weight)
        if prior is not None:
            nn.init.constant_(self.bias, math.log(prior) - math.log1p(-prior))
