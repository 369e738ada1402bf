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
        """Return class probabilities (N, C) of logits (N, C), or (N, 1) for one output."""
        ...


@dataclass(frozen=True)
class Readout:
    """The loss's probabilities over the classes that a run may predict.

    Args:
        loss: says how logits become probabilities.
        classes: labels that a prediction may be; logits of all others were never trained.
        adjustment: (C,) float64 from :func:`adjustment`, or None.
    """

    loss: PredictsProbabilities
    classes: Sequence[int]
    adjustment: Tensor | None = None

    def predict(self, logits: Tensor) -> Tensor:
        """Return class probabilities (N, C) of logits (N, C), or (N, 1) for one output."""
        if 1 < logits.shape[1] != len(self.classes):
            own = torch.tensor(self.classes, device=logits.device)
            others = torch.full_like(logits, -torch.inf)
            logits = others.index_copy(1, own, logits.index_select(1, own))
        probabilities = self.loss.predict(logits)
        if self.adjustment is None:
            return probabilities
        return (probabilities.log() + self.adjustment.to(probabilities)).softmax(dim=1)


def adjustment(class_counts: Tensor, *, tau: float) -> Tensor | None:
    """Return -tau log(share of the training images), (C,) float64; None for tau = 0.

    Added to log-probabilities it is post-hoc logit adjustment (Menon et al. 2021, "Long-tail
    learning via logit adjustment", eq. 9), whatever the loss makes of its logits: for a softmax it
    is the same as adding it to the logits. A class without training images gets 0.
    """
    if tau == 0:
        return None
    counts = class_counts.double()
    return torch.where(counts > 0, -tau * (counts / counts.sum()).log(), 0.0)
