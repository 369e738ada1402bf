"""Poly-1 loss."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge
from torch import Tensor

from ._base import FixedPoint, Idle, Limits, SampleMean
from ._device_softmax import RowLoss, RowTerm, device_loss, is_on_device
from ._inputs import ClassValues, as_float, check_fit, class_values, class_weight
from ._modulator import check_gamma, focal_modulator
from ._reduction import Reduction, SampleNormalizer, reduce_values, sample_normalizer
from ._softmax_terms import reduce_terms


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
    logits = as_float(logits)
    weight = class_weight(weight, logits)
    if is_on_device(logits) and not targets.is_floating_point():
        rows = RowLoss(
            targets,
            RowTerm(gamma=gamma, epsilon=epsilon),
            reduction=reduction,
            normalize=normalize,
            ignore_index=ignore_index,
            weight=weight,
            factor=weight,
        )
        found = device_loss(logits, rows)
        if found is not None:
            return found
    targets = targets.to(logits) if targets.is_floating_point() else targets
    normalizer = sample_normalizer(targets, weight, normalize=normalize, ignore_index=ignore_index)
    if not targets.is_floating_point():
        factor = targets != ignore_index
        if weight is not None:
            factor = class_values(weight, targets, ignore_index=ignore_index)
        return reduce_terms(
            logits,
            targets,
            lambda nll, factor: _poly(nll, epsilon=epsilon, gamma=gamma) * factor,
            values=[factor],
            reduction=reduction,
            normalizer=normalizer,
            ignore_index=ignore_index,
        )
    terms = targets * _poly(-logits.log_softmax(dim=1), epsilon=epsilon, gamma=gamma)
    values = terms.sum(dim=1)
    if weight is not None:
        values = class_values(weight, terms, ignore_index=ignore_index)
    return reduce_values(values, reduction=reduction, normalizer=normalizer)


def _poly(nll: Tensor, *, epsilon: float, gamma: float) -> Tensor:
    """Return the loss of each negative log-likelihood."""
    focal = nll if gamma == 0 else focal_modulator(nll, gamma=gamma) * nll
    return focal + epsilon * focal_modulator(nll, gamma=gamma + 1)


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
