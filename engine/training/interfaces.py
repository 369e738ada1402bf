"""What the batch loop asks of a loader and of a loss."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Batch(Protocol):
    """What a loader yields: images (N, C, H, W) float, targets (N,) int64, index (N,) int64."""

    @property
    def images(self) -> Tensor:
        """(N, C, H, W), normalised."""
        ...

    @property
    def targets(self) -> Tensor:
        """(N,) int64."""
        ...

    @property
    def index(self) -> Tensor:
        """(N,) int64, position of each image in its split."""
        ...

    @property
    def is_spare(self) -> bool:
        """Whether another process has these images too, and they do not count here."""
        ...


class Criterion(Protocol):
    """What the loop needs of a loss; see ``losses/_base.py``."""

    def __call__(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor,
        teacher_logits: Tensor | None,
    ) -> Tensor:
        """Compute the loss of a batch, a scalar."""
        ...

    def predict(self, logits: Tensor) -> Tensor:
        """Return class probabilities of logits."""
        ...

    def set_weight(self, weight: Tensor | None) -> None:
        """Use these class weights (C,) from now on."""
        ...

    def set_progress(self, epoch: int, epochs: int) -> None:
        """Say which epoch begins."""
        ...

    def normalizer(self, targets: Tensor, *, num_outputs: int) -> Tensor:
        """Return how much of a batch counts; it adds up over the batch's parts."""
        ...

    def divisor(self, normalizer: Tensor) -> Tensor:
        """Return what a mean divides by for this ``normalizer``."""
        ...
