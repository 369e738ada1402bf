"""Errors of a run whose numbers are no longer finite."""

from __future__ import annotations

from collections.abc import Sequence


class DivergenceError(RuntimeError):
    """Training has diverged: some number that matters is NaN or infinite."""


class NonFiniteLossError(DivergenceError):
    """The loss or its gradient became NaN or infinite.

    Attributes:
        epoch: epoch (0-based) in which it happened.
        step: optimizer step (0-based) of that epoch.
        classes: labels in that batch.
    """

    def __init__(self, epoch: int, step: int, classes: Sequence[int]) -> None:
        self.epoch, self.step, self.classes = epoch, step, tuple(classes)
        super().__init__(
            f"epoch {epoch + 1}, step {step + 1}: the loss or its gradient is not finite; classes "
            f"in the batch: {', '.join(map(str, classes))}"
        )


class NonFinitePredictionsError(DivergenceError):
    """The model's logits are NaN or infinite."""


class NonFiniteWeightsError(DivergenceError):
    """Some weights of the model are NaN or infinite."""
