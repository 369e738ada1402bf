"""Poly-1 loss."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge
from torch import Tensor

from ._base import FixedPoint, Idle, Limits, SampleMean
from ._inputs import ClassValues, as_float, as_labels, check_fit, class_values, class_weight
from ._modulator import check_gamma
from ._reduction import Reduction, SampleNormalizer, reduce_values, sample_normalizer
from ._sample_loss import SampleLoss
from ._softmax_terms import nll_of_shares
from ._terms import SampleTerm


def poly_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    epsilon: float = 1.0,
    gamma: float = 0.0,
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: SampleNormalizer = "samples",
    ignore_index: int = -100,
) -> Tensor:
    """Return sum_c t_c w_c ((1 - p_c)^gamma (-log p_c) + epsilon (1 - p_c)^(gamma + 1)).

    Poly-1 of Leng et al. 2022, "PolyLoss: A Polynomial Expansion Perspective of Classification Loss
    Functions": cross-entropy (gamma = 0) or focal loss, whose expansion in powers of 1 - p has the
    coefficient of its first term raised by epsilon. At epsilon = 0 it is the focal loss. The
    paper's code multiplies the focal form's first term by alpha and not the second; here both have
    the class weight. timm's PolyCrossEntropy is the same at gamma 0, and rounds 1 - p to 0 where p
    nears 1.

    Args:
        logits: (N, C) or (N, C, ...).
        targets: (N,) or (N, ...) int64 labels, or floating class probabilities of the logits'
            shape.
        epsilon: What is added to the coefficient 1 of 1 - p; at least -1.
        gamma: How strongly samples that the model already gets right are played down.
        weight: (C,) class weights.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: the number of valid ``samples`` or their ``weights``.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1.
        ValueError: For gamma below 0, epsilon below -1, targets that do not fit, an
            unknown reduction or normalisation.

    >>> import torch
    >>> poly_loss(torch.zeros(1, 2), torch.tensor([1]), epsilon=2)  # log 2 + 2 (1 - 1/2)
    tensor(1.6931)
    """
    check_gamma(gamma)
    if not epsilon >= -1:
        raise ValueError(f"epsilon must be at least -1, not {epsilon}")
    check_fit(logits, targets)
    logits, targets = as_float(logits), as_labels(targets)
    weight = class_weight(weight, logits)
    term = SampleTerm(gamma=gamma, epsilon=epsilon)
    if not targets.is_floating_point():
        loss = SampleLoss(targets, term, reduction, normalize, ignore_index, weight, factor=weight)
        return loss.of(logits)
    targets = targets.to(logits)
    normalizer = sample_normalizer(targets, weight, normalize=normalize, ignore_index=ignore_index)
    terms = targets * term.of(nll_of_shares(logits, targets)).values
    values = terms.sum(dim=1)
    if weight is not None:
        values = class_values(weight, terms, ignore_index=ignore_index)
    return reduce_values(values, reduction=reduction, normalizer=normalizer)


class Poly(SampleMean):
    """Cross-entropy, or focal loss, plus epsilon times the first term of its expansion in 1 - p.

    Args:
        epsilon: What is added to the coefficient of 1 - p; above 0 pushes towards confidence.
        gamma: Gamma of the focal loss; 0 is cross-entropy.
        normalize: What the batch mean divides by: the number of samples, or the sum of their class
            weights.
    """

    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    aims_at: ClassVar[str] = "accuracy where classes are as frequent as in training"
    fixed_point: ClassVar[FixedPoint] = "none"
    idle: ClassVar[Idle] = (({"weight": None}, ("normalize",)),)
    equals: ClassVar[Limits] = (
        ({"epsilon": 0.0, "gamma": 0.0}, "cross_entropy", {}),
        ({"epsilon": 0.0, "gamma": 2.0}, "softmax_focal", {"gamma": 2.0}),
    )

    def __init__(
        self,
        *,
        epsilon: Annotated[float, Ge(-1)] = 1.0,
        gamma: Annotated[float, Ge(0)] = 0.0,
        normalize: Literal["samples", "weights"] = "samples",
    ) -> None:
        super().__init__(normalize=normalize)
        self.epsilon = epsilon
        self.gamma = gamma

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch; see `poly_loss`."""
        return poly_loss(
            logits,
            targets,
            epsilon=self.epsilon,
            gamma=self.gamma,
            weight=self.weight,
            normalize=self.normalize,
        )
