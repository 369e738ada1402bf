"""The head of nearest class means, a classifier without training."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cosine import Cosine


class NearestMean(nn.Module):
    """Cosine between features and the mean feature of each class, times one factor.

    The nearest-class-mean classifier (Kang et al. 2020, "Decoupling Representation and Classifier
    for Long-Tailed Recognition", sec. 4.2). The means are those of the training images through the
    backbone as it begins, and stay. Which class is nearest is settled by them alone. What is
    trained is one positive factor of all logits, so that probabilities are neither too sure nor too
    unsure; it starts at 1. A class without training images has logits of 0.

    Args:
        num_features: D.
        num_outputs: Number of logits.
    """

    gives_cosines: ClassVar[bool] = False
    begins_at: ClassVar[str] = "class_mean"

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_outputs, num_features), requires_grad=False)
        self.log_temperature = nn.Parameter(torch.zeros(()))

    begin_at = Cosine.begin_at

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (N, num_outputs) of features (N, D)."""
        directions = F.normalize(features, dim=1, eps=Cosine.shortest)
        return F.linear(directions, self.weight) * self.log_temperature.exp()
