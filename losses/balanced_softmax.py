"""Balanced softmax."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from ._adjustment import Adjustment
from ._base import FixedPoint, Idle, Limits, SampleMean
from ._counts import log_prior
from ._inputs import ClassValues
from ._reduction import Reduction, SampleNormalizer
from .cross_entropy import adjusted_cross_entropy
from .logit_adjustment import logit_adjustment_loss


def balanced_softmax_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    class_counts: ClassValues,
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: SampleNormalizer = "samples",
    ignore_index: int = -100,
) -> Tensor:
    """Return -log(n_y exp(x_y) / sum_c n_c exp(x_c)) (Ren et al. 2020, eq. 4).

    "Balanced Meta-Softmax for Long-Tailed Visual Recognition": the softmax of training images when
    logits x stand for a balanced test set, which is why test predictions use x as it is. Equal to
    `logit_adjustment_loss` at tau = 1. Public code takes the logarithm of an (N, C) matrix of
    counts at every step, and is infinite for a class without images; here such a class takes no
    part in the softmax.

    Args:
        logits: (N, C) or (N, C, ...).
        targets: (N,) or (N, ...) int64 labels, or floating class probabilities of the logits'
            shape.
        class_counts: (C,) training images of each class.
        weight: (C,) class weights.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: the number of valid ``samples`` or their ``weights``.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1.
        ValueError: For counts that are negative, not finite or all 0, an unknown reduction or
            normalisation.
    """
    return logit_adjustment_loss(
        logits,
        targets,
        class_counts=class_counts,
        tau=1.0,
        weight=weight,
        reduction=reduction,
        normalize=normalize,
        ignore_index=ignore_index,
    )


class BalancedSoftmax(SampleMean):
    """Cross-entropy of a softmax in which each class counts by its number of training images.

    Args:
        normalize: What the batch mean divides by: the number of samples, or the sum of their class
            weights.
    """

    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    aims_at: ClassVar[str] = "balanced accuracy"
    fixed_point: ClassVar[FixedPoint] = "uniform"
    idle: ClassVar[Idle] = (({"weight": None}, ("normalize",)),)
    equals: ClassVar[Limits] = (({}, "logit_adjustment", {"tau": 1.0}),)

    log_prior: Tensor

    def __init__(
        self,
        class_counts: ClassValues,
        *,
        normalize: Literal["samples", "weights"] = "samples",
    ) -> None:
        super().__init__(normalize=normalize)
        self._note_counts(class_counts)
        # Not persistent: it follows from the data set, which is where a run takes it from.
        self.register_buffer("log_prior", log_prior(class_counts), persistent=False)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch; see `balanced_softmax_loss`."""
        return adjusted_cross_entropy(
            logits,
            targets,
            Adjustment(offset=self.log_prior),
            weight=self.weight,
            normalize=self.normalize,
        )
