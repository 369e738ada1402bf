"""From a model's logits to class probabilities: in a run, and wherever its model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class PredictsProbabilities(Protocol):
    """The part of a loss that evaluation needs."""

    def predict(self, logits: Tensor) -> Tensor:
        """Class probabilities (N, C) of logits (N, C), or (N, 1) for one output."""
        ...


@dataclass(frozen=True)
class Readout:
    """The loss's probabilities, of the classes that a run has to do with alone.

    Args:
        loss: says how logits become probabilities.
        classes: labels that a prediction may be; logits of all others were never trained.
    """

    loss: PredictsProbabilities
    classes: Sequence[int]

    def predict(self, logits: Tensor) -> Tensor:
        """Class probabilities (N, C) of logits (N, C), or (N, 1) for one output."""
        if 1 < logits.shape[1] != len(self.classes):
            own = torch.tensor(self.classes, device=logits.device)
            others = torch.full_like(logits, -torch.inf)
            logits = others.index_copy(1, own, logits.index_select(1, own))
        return self.loss.predict(logits)
