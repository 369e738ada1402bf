"""Vector-scaling loss."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from ._adjustment import Adjustment
from ._base import FactsAt, FixedPoint, Idle, Limits, SampleMean
from ._counts import checked_counts, prior_offset
from ._inputs import ClassValues
from ._reduction import Reduction, SampleNormalizer
from .cross_entropy import adjusted_cross_entropy


def vector_scaling_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    class_counts: ClassValues,
    gamma: float = 0.3,
    tau: float = 1.0,
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: SampleNormalizer = "samples",
    ignore_index: int = -100,
) -> Tensor:
    """Return the cross-entropy of factor_c x_c + tau log prior_c (Kini et al. 2021, eq. 2).

    "Label-Imbalanced and Group-Sensitive Classification under Overparameterization", with factors
    (n_c / n_max)^gamma: below 1 for rare classes, whose logits must be larger for the same loss, so
    they keep a larger margin once everything is fitted; the additive part speeds up the start. The
    class weight omega of that equation is ``weight``. At gamma = 0 it is logit adjustment, at tau =
    0 the class-dependent temperatures of Ye et al. 2020, at both cross-entropy. Test predictions
    use the logits as they are.

    Args:
        logits: (N, C) or (N, C, ...).
        targets: (N,) or (N, ...) int64 labels, or floating class probabilities of the logits'
            shape.
        class_counts: (C,) training images of each class. One without images takes no part in the
            softmax; the authors' code divides by its count of 0.
        gamma: Strength of the factors.
        tau: Strength of the additive adjustment.
        weight: (C,) class weights.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: the number of valid ``samples`` or their ``weights``,
            as the authors' code does.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1.
        ValueError: For counts that are negative, not finite or all 0, an unknown reduction or
            normalisation.

    >>> logits = torch.tensor([[0.0, 2.0]])  # factors 1 and 1/2: log(1 + exp(1))
    >>> vector_scaling_loss(logits, torch.tensor([0]), class_counts=[4, 1], gamma=0.5, tau=0)
    tensor(1.3133)
    """
    factors = _factors(class_counts, gamma=gamma)
    offset = prior_offset(class_counts, num_classes=logits.shape[1], tau=tau)
    return adjusted_cross_entropy(
        logits,
        targets,
        Adjustment(scale=factors, offset=offset),
        weight=weight,
        reduction=reduction,
        normalize=normalize,
        ignore_index=ignore_index,
    )


def _factors(class_counts: ClassValues, *, gamma: float) -> Tensor:
    """Return (n / n_max)^gamma, float64 (C,); 1 where n is 0, which the offset masks."""
    counts = checked_counts(class_counts)
    return torch.where(counts > 0, (counts / counts.max()) ** gamma, 1.0)


class VectorScaling(SampleMean):
    """Cross-entropy of logits with a factor and an offset for each class, by its training images.

    Args:
        gamma: Strength of the factors; 0 is logit adjustment.
        tau: Strength of the additive adjustment; 0 leaves class-dependent temperatures.
        normalize: What the batch mean divides by: the number of samples, or the sum of their class
            weights.
    """

    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    aims_at: ClassVar[str] = "balanced accuracy"
    fixed_point: ClassVar[FixedPoint] = "none"
    facts_at: ClassVar[FactsAt] = (
        ({"tau": 1.0}, {"fixed_point": "uniform"}),
        ({"tau": 0.0, "gamma": 0.0}, {"fixed_point": "natural"}),
    )
    idle: ClassVar[Idle] = (({"weight": None}, ("normalize",)),)
    equals: ClassVar[Limits] = (
        ({"gamma": 0.0}, "logit_adjustment", {}),
        ({"gamma": 0.0, "tau": 0.0}, "cross_entropy", {}),
    )

    factors: Tensor
    offset: Tensor

    def __init__(
        self,
        class_counts: ClassValues,
        *,
        gamma: Annotated[float, Ge(0)] = 0.3,
        tau: Annotated[float, Ge(0)] = 1.0,
        normalize: Literal["samples", "weights"] = "samples",
    ) -> None:
        super().__init__(normalize=normalize)
        self._note_counts(class_counts)
        # Not persistent: they follow from the data set, which is where a run takes them from.
        self.register_buffer("factors", _factors(class_counts, gamma=gamma), persistent=False)
        self.register_buffer("offset", prior_offset(class_counts, tau=tau), persistent=False)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch; see `vector_scaling_loss`."""
        return adjusted_cross_entropy(
            logits,
            targets,
            Adjustment(scale=self.factors, offset=self.offset),
            weight=self.weight,
            normalize=self.normalize,
        )
