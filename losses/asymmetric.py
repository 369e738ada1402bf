"""Asymmetric loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Interval
from torch import Tensor

from ._base import ElementMean, FixedPoint, Limits
from ._inputs import ClassValues, as_float
from ._modulator import check_gamma, focal_modulator
from ._reduction import Reduction, reduce_values
from ._sigmoid_terms import ElementNormalizer, binary_elements, element_normalizer


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: ElementNormalizer = "elements",
    ignore_index: int = -100,
) -> Tensor:
    """Return -t (1 - p)^g+ log p - (1 - t) q^g- log(1 - q) with q = max(p - margin, 0).

    Ben-Baruch et al. 2021, "Asymmetric Loss For Multi-Label Classification", eq. 7: a focal loss on
    sigmoids that plays easy negatives down more than easy positives and drops those below the
    margin. With a margin the loss of a negative ends at -log(margin) and its slope vanishes there:
    the worst negatives count as mislabelled. At margin 0 and one gamma it is the focal loss, and
    with gamma 0 binary cross-entropy.

    The authors' code and timm hold probabilities above 1e-8 in the logarithm, so that a positive
    with a logit below -18.4 has no gradient; here it keeps it. They sum over samples (timm: over
    classes, ``normalize="batch"``), weigh targets between 0 and 1 by a mixed p_t, and may keep the
    modulating factors from the gradient.

    Args:
        logits: (N, C), (N, C, ...), or (N, 1) for two classes with class 1 the positive one.
        targets: (N,) or (N, ...) int64 labels; or targets of the logits' shape with values 0 to 1,
            one for each output (multi-label); or (N, 2, ...) class probabilities for one output.
        gamma_positive: How strongly positives that are already right are played down.
        gamma_negative: The same for negatives.
        margin: Probability below which a negative costs nothing, 0 to 1.
        weight: (C,) class weights, two for a single output: the weight of a sample's class
            multiplies all of its outputs.
        reduction: ``none`` gives the logits' shape; ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: all ``elements``, samples in the ``batch``, or
            ``positives``, at least 1.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label out of range (on the CPU; never when compiled).
        ValueError: For shapes that do not fit, a gamma below 0, a margin below 0 or of 1
            and more, an unknown reduction or normalisation, and a target outside 0 to 1 (on the
            CPU; never when compiled).

    >>> logits, targets = torch.zeros(2), torch.tensor([1.0, 0.0])  # log 2, 0.45^4 * -log 0.55
    >>> asymmetric_loss(logits, targets, reduction="none")
    tensor([0.6931, 0.0245])
    """
    for gamma in (gamma_positive, gamma_negative):
        check_gamma(gamma)
    if not 0 <= margin < 1:
        raise ValueError(f"margin must be 0 or more and below 1, not {margin}")
    if normalize not in ("elements", "batch", "positives"):
        raise ValueError(f"normalize must be elements, batch or positives, not {normalize!r}")
    logits = as_float(logits)
    batch = binary_elements(logits, targets, gamma=0.0, weight=weight, ignore_index=ignore_index)
    logits = torch.where(batch.valid, logits, 0)  # a factor of 0 would leave NaN of infinite ones
    # And so it would of those that are right, in the term that has no share.
    is_right = torch.where(logits > 0, batch.positive == 1, batch.positive == 0)
    far = torch.finfo(logits.dtype).max / 2
    logits = torch.where(is_right, logits.clamp(-far, far), logits)
    positives = _likelihood(logits, gamma=gamma_positive)
    negatives = _negatives(logits, gamma=gamma_negative, margin=margin)
    if batch.positive.dtype == torch.bool:
        values = torch.where(batch.positive, positives, negatives)
    else:
        values = batch.positive * positives + (1 - batch.positive) * negatives
    normalizer = element_normalizer(batch, normalize=normalize)
    return reduce_values(values * batch.factor, reduction=reduction, normalizer=normalizer)


def _likelihood(logits: Tensor, *, gamma: float) -> Tensor:
    """Return (1 - p)^gamma (-log p) with p = sigmoid(logits), for any logits."""
    values = F.softplus(-logits, threshold=40)
    return values if gamma == 0 else values * torch.exp(-gamma * F.softplus(logits, threshold=40))


def _negatives(logits: Tensor, *, gamma: float, margin: float) -> Tensor:
    """Return q^gamma (-log(1 - q)) with q = max(sigmoid(logits) - margin, 0)."""
    if margin == 0:
        return _likelihood(-logits, gamma=gamma)
    nll = -torch.log((logits.neg().sigmoid() + margin).clamp_max(1))
    return nll if gamma == 0 else focal_modulator(nll, gamma=gamma) * nll


class Asymmetric(ElementMean):
    """Focal loss on one sigmoid per class with a gamma of its own for negatives, and a margin.

    Args:
        gamma_positive: How strongly positives that are already right are played down.
        gamma_negative: The same for negatives.
        margin: Probability below which a negative costs nothing.
        normalize: What the batch sum is divided by: samples times outputs, samples, or positives.
    """

    activation: ClassVar[Literal["softmax", "sigmoid"]] = "sigmoid"
    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    aims_at: ClassVar[str] = "positives of multi-label data, rare among many negatives"
    fixed_point: ClassVar[FixedPoint] = "none"
    breaks: ClassVar[Mapping[str, str]] = {
        "stated_limits_of_soft_targets": "weighs a target term by term, not by its likelihood",
        "worst_mistakes": "a negative ends at -log(margin): the worst count as mislabelled",
    }
    equals: ClassVar[Limits] = (
        (
            {"gamma_positive": 2.0, "gamma_negative": 2.0, "margin": 0.0},
            "sigmoid_focal",
            {"gamma": 2.0},
        ),
        (
            {"gamma_positive": 0.0, "gamma_negative": 0.0, "margin": 0.0},
            "binary_cross_entropy",
            {},
        ),
    )

    def __init__(
        self,
        *,
        gamma_positive: Annotated[float, Ge(0)] = 0.0,
        gamma_negative: Annotated[float, Ge(0)] = 4.0,
        margin: Annotated[float, Interval(ge=0, lt=1)] = 0.05,
        normalize: Literal["elements", "batch", "positives"] = "elements",
    ) -> None:
        super().__init__(normalize=normalize)
        self.gamma_positive = gamma_positive
        self.gamma_negative = gamma_negative
        self.margin = margin

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch; see `asymmetric_loss`."""
        return asymmetric_loss(
            logits,
            targets,
            gamma_positive=self.gamma_positive,
            gamma_negative=self.gamma_negative,
            margin=self.margin,
            weight=self.weight,
            normalize=self.normalize,
        )
