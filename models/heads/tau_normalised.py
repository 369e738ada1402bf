"""The tau-normalised head, a second stage."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

SHORTEST = 1e-12


def tau_normalised(weight: Tensor, *, tau: float) -> Tensor:
    """Return the rows of a classifier's weight (C, D), each over its length to the power of tau.

    Kang et al. 2020, "Decoupling Representation and Classifier for Long-Tailed Recognition", eq. 7.
    At 0 nothing changes, at 1 all rows have length 1. A row of length 0 stays.

    >>> tau_normalised(torch.tensor([[3.0, 4.0], [0.6, 0.8]]), tau=1.0)
    tensor([[0.6000, 0.8000],
            [0.6000, 0.8000]])
    """
    lengths = weight.norm(dim=1, keepdim=True).clamp_min(SHORTEST)
    return weight / lengths**tau


class TauNormalised(nn.Module):
    """The weights of another run's head at rest, over their lengths to the power of tau.

    Tau-normalisation (Kang et al. 2020, "Decoupling Representation and Classifier for Long-Tailed
    Recognition", sec. 4.2), without a bias. Which class has the largest logit is settled by tau
    alone. What is trained is one positive factor of all logits, so that probabilities are neither
    too sure nor too unsure; it starts at 1.

    Args:
        num_features: D.
        num_outputs: Number of logits.
        tau: 0 leaves the weights as they are, 1 gives all classes one length; the authors choose it
            on validation.
    """

    gives_cosines: ClassVar[bool] = False
    starts_anew: ClassVar[tuple[str, ...]] = ("log_temperature",)
    leaves_out: ClassVar[tuple[str, ...]] = ("bias",)

    def __init__(
        self, num_features: int, num_outputs: int, *, tau: Annotated[float, Ge(0)] = 1.0
    ) -> None:
        super().__init__()
        self.tau = tau
        self.weight = nn.Parameter(torch.empty(num_outputs, num_features), requires_grad=False)
        nn.init.kaiming_uniform_(self.weight)
        self.log_temperature = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (N, num_outputs) of features (N, D)."""
        logits = F.linear(features, tau_normalised(self.weight, tau=self.tau))
        return logits * self.log_temperature.exp()
