"""Sums over an epoch, which checkpoints keep, and the position in it after a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass
class EpochTotals:
    """Sums over the part of an epoch that is done; kept in checkpoints inside an epoch."""

    loss: float = 0.0
    correct: float = 0.0
    images: int = 0
    steps: int = 0
    seconds: float = 0.0
    grad_norm: float = 0.0

    def metrics(self) -> dict[str, float]:
        """Return means over the images seen: loss, accuracy (of unmixed labels), gradient norm."""
        return {
            "loss": self.loss / max(self.images, 1),
            "accuracy": self.correct / max(self.images, 1),
            "grad_norm": self.grad_norm / max(self.steps, 1),
        }

    def row(self, epoch: int, *, steps: int, rate: float) -> dict[str, Any]:
        """Return the beginning of the line of an epoch (0-based) of ``steps`` steps."""
        means = {f"train/{name}": value for name, value in self.metrics().items()}
        return {"epoch": epoch + 1, "step": (epoch + 1) * steps, "lr": rate, **means}

    def timing(self) -> dict[str, float]:
        """Return seconds of training and images a second, which are no part of a run's results."""
        speed = self.images / max(self.seconds, 1e-9)
        return {"time/epoch_seconds": self.seconds, "time/images_per_second": speed}


class Step(NamedTuple):
    """Where training is after an optimizer step.

    Attributes:
        epoch: the epoch (0-based).
        step: steps of it that are done, of ``steps``.
        steps: steps an epoch.
        rate: learning rate of the step.
        totals: sums over the epoch; on an accelerator those of some steps ago.
    """

    epoch: int
    step: int
    steps: int
    rate: float
    totals: EpochTotals
