"""Balanced binary cross-entropy."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from ._base import ElementMean, FactsAt, FixedPoint, Limits
from ._counts import MASKED, checked_counts, over_classes
from ._inputs import ClassValues, as_float
from ._reduction import Reduction
from ._sigmoid_terms import ElementNormalizer
from .binary_cross_entropy import binary_cross_entropy_loss


def balanced_binary_cross_entropy_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    class_counts: ClassValues,
    tau: float = 1.0,
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: ElementNormalizer = "elements",
    ignore_index: int = -100,
) -> Tensor:
    """Return the binary cross-entropy of x_c + tau (log prior_c - log(1 - prior_c)).

    Bal-BCE of Xu et al. 2023, "Learning Imbalanced Data with Vision Transformers" (LiVT), sec. 3.3:
    logit adjustment for sigmoids, whose prior is a class against all others. At tau = 0 it is
    binary cross-entropy, and test predictions use the logits as they are. The authors' code sums
    over classes (``normalize="batch"``) and is NaN for a class without images; here such a class
    costs nothing.

    Args:
        logits: (N, C), (N, C, ...), or (N, 1) for two classes with class 1 the positive one.
        targets: (N,) or (N, ...) int64 labels; or targets of the logits' shape with values 0 to 1,
            one for each output; or (N, 2, ...) class probabilities for a single output.
        class_counts: (C,) training images of each class, two for a single output.
        tau: Strength of the adjustment.
        weight: (C,) class weights, two for a single output: the weight of a sample's class
            multiplies all of its outputs.
        reduction: ``none`` gives the logits' shape; ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: all ``elements``, samples in the ``batch``, or
            ``positives``, at least 1.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label out of range (on the CPU; never when compiled).
        ValueError: For counts that are negative, not finite or all 0, shapes that do not fit, an
            unknown reduction or normalisation, and a target outside 0 to 1 (on the CPU; never when
            compiled).

    >>> logits, counts = torch.zeros(1, 2), [3, 1]  # log(1 + exp(log 3)) for both outputs
    >>> balanced_binary_cross_entropy_loss(logits, torch.tensor([1]), class_counts=counts)
    tensor(1.3863)
    """
    offset = _offset(class_counts, num_classes=max(logits.shape[1], 2), tau=tau)
    return binary_cross_entropy_loss(
        _adjusted(logits, offset=offset),
        targets,
        weight=weight,
        reduction=reduction,
        normalize=normalize,
        ignore_index=ignore_index,
    )


def _offset(class_counts: ClassValues, *, num_classes: int | None = None, tau: float) -> Tensor:
    """Return tau times the logit of each class's share, float64 (C,), `MASKED` for a share of 0."""
    counts = checked_counts(class_counts, num_classes)
    others = counts.sum() - counts
    # Clamped first: where no other class has images it is infinite, and 0 times that is NaN.
    offset = tau * (counts.log() - others.log()).clamp(MASKED, -MASKED)
    return torch.where(counts > 0, offset.clamp(MASKED, -MASKED), MASKED)


def _adjusted(logits: Tensor, *, offset: Tensor) -> Tensor:
    """Return logits plus the offset of each class; a single output is that of class 1."""
    logits = as_float(logits)
    if logits.shape[1] == 1 and len(offset) == 2:
        offset = offset[1:]
    return logits + over_classes(offset, logits)


class BalancedBinaryCrossEntropy(ElementMean):
    """Binary cross-entropy of logits to which tau times the logit of the class's share was added.

    Args:
        tau: Strength of the adjustment; 0 is binary cross-entropy.
        normalize: What the batch sum is divided by: samples times outputs, samples, or positives.
    """

    activation: ClassVar[Literal["softmax", "sigmoid"]] = "sigmoid"
    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    aims_at: ClassVar[str] = "balanced accuracy"
    fixed_point: ClassVar[FixedPoint] = "none"
    facts_at: ClassVar[FactsAt] = (
        ({"tau": 1.0}, {"fixed_point": "uniform"}),
        ({"tau": 0.0}, {"fixed_point": "natural"}),
    )
    equals: ClassVar[Limits] = (({"tau": 0.0}, "binary_cross_entropy", {}),)

    offset: Tensor

    def __init__(
        self,
        class_counts: ClassValues,
        *,
        tau: Annotated[float, Ge(0)] = 1.0,
        normalize: Literal["elements", "batch", "positives"] = "elements",
    ) -> None:
        super().__init__(normalize=normalize)
        self._note_counts(class_counts)
        # Not persistent: it follows from the data set, which is where a run takes it from.
        self.register_buffer("offset", _offset(class_counts, tau=tau), persistent=False)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch; see `balanced_binary_cross_entropy_loss`."""
        logits = _adjusted(logits, offset=self.offset)
        return binary_cross_entropy_loss(
            logits, targets, weight=self.weight, normalize=self.normalize
        )
