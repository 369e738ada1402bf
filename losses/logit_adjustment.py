"""Logit-adjusted softmax cross-entropy."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge
from torch import Tensor

from ._adjustment import Adjustment
from ._base import FactsAt, FixedPoint, Idle, Limits, SampleMean
from ._counts import prior_offset
from ._inputs import ClassValues
from ._reduction import Reduction, SampleNormalizer
from .cross_entropy import adjusted_cross_entropy


def logit_adjustment_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    class_counts: ClassValues,
    tau: float = 1.0,
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: SampleNormalizer = "samples",
    ignore_index: int = -100,
) -> Tensor:
    """Return the cross-entropy of logits + tau log prior (Menon et al. 2021, eq. 10).

    "Long-tail learning via logit adjustment". The prior is each class's share of the training
    images. At tau = 1 it is the balanced softmax, at tau = 0 cross-entropy. What it fits is the
    posterior under a uniform prior: test predictions use the logits as they are, unadjusted.

    Args:
        logits: (N, C) or (N, C, ...).
        targets: (N,) or (N, ...) int64 labels, or floating class probabilities of the logits'
            shape.
        class_counts: (C,) training images of each class. One without images takes no part in the
            softmax; public code makes its loss infinite or NaN.
        tau: Strength of the adjustment.
        weight: (C,) class weights.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: the number of valid ``samples`` or their ``weights``.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1.
        ValueError: For counts that are negative, not finite or all 0, an unknown reduction or
            normalisation.

    >>> import torch
    >>> logits = torch.zeros(1, 2)
    >>> logit_adjustment_loss(logits, torch.tensor([1]), class_counts=[3, 1])  # log 4
    tensor(1.3863)
    """
    return adjusted_cross_entropy(
        logits,
        targets,
        Adjustment(offset=prior_offset(class_counts, num_classes=logits.shape[1], tau=tau)),
        weight=weight,
        reduction=reduction,
        normalize=normalize,
        ignore_index=ignore_index,
    )


class LogitAdjustment(SampleMean):
    """Cross-entropy of logits to which tau times the log of the class's share was added.

    Args:
        tau: Strength of the adjustment; 0 is cross-entropy, 1 the balanced softmax.
        normalize: What the batch mean divides by: the number of samples, or the sum of their class
            weights.
    """

    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    aims_at: ClassVar[str] = "balanced accuracy (at tau = 1)"
    fixed_point: ClassVar[FixedPoint] = "none"
    facts_at: ClassVar[FactsAt] = (
        ({"tau": 1.0}, {"fixed_point": "uniform"}),
        ({"tau": 0.0}, {"fixed_point": "natural"}),
    )
    idle: ClassVar[Idle] = (({"weight": None}, ("normalize",)),)
    equals: ClassVar[Limits] = (
        ({"tau": 0.0}, "cross_entropy", {}),
        ({"tau": 1.0}, "balanced_softmax", {}),
    )

    offset: Tensor

    def __init__(
        self,
        class_counts: ClassValues,
        *,
        tau: Annotated[float, Ge(0)] = 1.0,
        normalize: Literal["samples", "weights"] = "samples",
    ) -> None:
        super().__init__(normalize=normalize)
        self._note_counts(class_counts)
        # Not persistent: it follows from the data set, which is where a run takes it from.
        self.register_buffer("offset", prior_offset(class_counts, tau=tau), persistent=False)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch; see `logit_adjustment_loss`."""
        return adjusted_cross_entropy(
            logits,
            targets,
            Adjustment(offset=self.offset),
            weight=self.weight,
            normalize=self.normalize,
        )
