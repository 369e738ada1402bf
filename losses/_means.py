"""Bases of losses whose batch mean divides by samples, by their class weights, or by elements."""

from __future__ import annotations

from torch import Tensor

from ._base import Loss
from ._elements import ElementNormalizer, element_amount
from ._reduction import SampleNormalizer, sample_normalizer


class LogitsLoss(Loss):
    """Loss of logits and targets alone; a subclass says what `batch_mean` is."""

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
        teacher_logits: Tensor | None = None,
    ) -> Tensor:
        """Return the mean loss of a batch, as the function of the same file has it."""
        del features, teacher_logits
        self._refuse_empty_classes(logits, targets)
        return self.batch_mean(logits, targets)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch whose targets all have training images."""
        raise NotImplementedError


class SampleMean(LogitsLoss):
    """Mean over samples: their number divides the sum, or the sum of their class weights."""

    def __init__(self, *, normalize: SampleNormalizer) -> None:
        super().__init__()
        self.normalize = normalize

    def amount(self, targets: Tensor, *, num_outputs: int) -> Tensor:
        """Return the number of samples, or the sum of their weights."""
        del num_outputs
        return sample_normalizer(
            targets, self.weight, normalize=self.normalize, ignore_index=-100
        ).float()


class ElementMean(LogitsLoss):
    """Mean of one sigmoid a class: samples times outputs, samples, or positives divide the sum."""

    def __init__(self, *, normalize: ElementNormalizer) -> None:
        super().__init__()
        self.normalize = normalize

    def amount(self, targets: Tensor, *, num_outputs: int) -> Tensor:
        """Return the number of samples, to which that of elements is proportional, or positives."""
        return element_amount(targets, num_outputs=num_outputs, normalize=self.normalize)

    def divisor(self, amount: Tensor) -> Tensor:
        """Return at least 1 for positives, as the loss does."""
        return amount.clamp_min(1) if self.normalize == "positives" else super().divisor(amount)
