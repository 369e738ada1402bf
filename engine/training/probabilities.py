"""From a model's logits to class probabilities: in a run, and wherever its model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from engine.training.logits import LogitFile, row_blocks, rows_of


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


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Class probabilities (N, C) float64, made of logits a block at a time when they are asked for.

    Args:
        logits: (N, C) float32, in memory or in a file.
        readout: turns logits into probabilities.
        is_single: the model has one output x, of which ``logits`` has (0, x).
    """

    logits: np.ndarray | LogitFile
    readout: PredictsProbabilities
    is_single: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C)."""
        return self.logits.shape

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield consecutive rows, in order."""
        for rows in row_blocks(*self.logits.shape):
            block = torch.from_numpy(rows_of(self.logits, rows))
            yield self.readout.predict(block[:, 1:] if self.is_single else block).numpy()

    def whole(self) -> np.ndarray:
        """Return all rows together."""
        return np.concatenate(list(self.blocks()))


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
