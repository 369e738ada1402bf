"""Softmax cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Lt
from torch import Tensor

from ._adjustment import UNADJUSTED, Adjustment
from ._base import FixedPoint, Idle, SampleMean
from ._inputs import (
    ClassValues,
    as_float,
    as_labels,
    check_fit,
    check_labels_fit,
    class_weight,
    counted_logits,
)
from ._reduction import Reduction, SampleNormalizer, reduce_values, sample_normalizer
from ._sample_loss import SampleLoss
from ._softmax_terms import (
    SmoothingWeight,
    check_smoothing,
    smoothed_cross_entropy,
)
from ._terms import CROSS_ENTROPY


def cross_entropy_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: SampleNormalizer = "samples",
    label_smoothing: float = 0.0,
    smoothing_weight: SmoothingWeight = "sample",
    ignore_index: int = -100,
) -> Tensor:
    """Return -sum_c t_c w_c log p_c with p = softmax(logits), in float32 or float64.

    It differs from `torch.nn.functional.cross_entropy` in two points. What a mean is: there,
    weighted labels are divided by the sum of their weights and weighted soft targets by N; here
    both are divided by the number of valid samples, or both by the sum of the weights (a soft
    sample weighs sum_c t_c w_c). So one-hot targets and labels agree at all finite logits, and so
    do cross-entropy and focal loss at gamma 0. And what weighs the evenly spread part of a smoothed
    label, -s/C sum_c log p_c: here the weight of the sample. There it is the weight of each class
    (``smoothing_weight="class"``): with weights of 1/n every image then asks most for the rarest
    class, whatever its own. Without weights the two functions are the same, except that nothing
    valid gives 0 here and NaN there.

    Args:
        logits: (N, C) or (N, C, ...).
        targets: (N,) or (N, ...) int64 labels, or floating class probabilities of the logits'
            shape.
        weight: (C,) class weights.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: the number of valid ``samples`` or their ``weights``.
        label_smoothing: Share of each target that is spread evenly over all classes, 0 to 1.
        smoothing_weight: What weighs that share: the weight of the ``sample`` or of each ``class``.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1.
        ValueError: For targets that do not fit, weights that are not C numbers, label smoothing
            outside 0 to 1, an unknown weight of it, reduction or normalisation.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 1.0, 0.1, -1.0], [1.0, 3.0, 0.1, -0.5]])
    >>> cross_entropy_loss(logits, torch.tensor([0, 1]), weight=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor(0.4240)
    """
    return adjusted_cross_entropy(
        logits,
        targets,
        UNADJUSTED,
        weight=weight,
        reduction=reduction,
        normalize=normalize,
        label_smoothing=label_smoothing,
        smoothing_weight=smoothing_weight,
        ignore_index=ignore_index,
    )


def adjusted_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    adjustment: Adjustment,
    *,
    weight: ClassValues | None,
    reduction: Reduction = "mean",
    normalize: SampleNormalizer,
    label_smoothing: float = 0.0,
    smoothing_weight: SmoothingWeight = "sample",
    ignore_index: int = -100,
) -> Tensor:
    """Return `cross_entropy_loss` of adjusted logits; a margin is for labels alone."""
    check_smoothing(label_smoothing, smoothing_weight)
    logits, targets = as_float(logits), as_labels(targets)
    weight = class_weight(weight, logits)
    if label_smoothing == 0 and not targets.is_floating_point():
        loss = SampleLoss(
            targets,
            CROSS_ENTROPY,
            reduction,
            normalize,
            ignore_index,
            weight,
            factor=weight,
            adjustment=adjustment,
        )
        return loss.of(logits)
    check = check_fit if adjustment.own is None else check_labels_fit
    check(logits, targets)
    targets = targets.to(logits) if targets.is_floating_point() else targets
    normalizer = sample_normalizer(targets, weight, normalize=normalize, ignore_index=ignore_index)
    values = smoothed_cross_entropy(
        adjustment.of(counted_logits(logits, targets, ignore_index=ignore_index), targets),
        targets,
        weight=weight,
        label_smoothing=label_smoothing,
        smoothing_weight=smoothing_weight,
        ignore_index=ignore_index,
    )
    return reduce_values(values, reduction=reduction, normalizer=normalizer)


class CrossEntropy(SampleMean):
    """Softmax cross-entropy: -log of the probability that the model gives to the true class.

    Args:
        normalize: What the batch mean divides by: the number of samples, or the sum of their class
            weights as torch.nn.CrossEntropyLoss does.
        label_smoothing: Share of each target that is spread evenly over all classes.
        smoothing_weight: What weighs that share: the class weight of the sample, or that of each
            class as in torch.nn.CrossEntropyLoss.
    """

    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    aims_at: ClassVar[str] = "accuracy where classes are as frequent as in training"
    fixed_point: ClassVar[FixedPoint] = "natural"
    idle: ClassVar[Idle] = (
        ({"label_smoothing": 0.0}, ("smoothing_weight",)),
        ({"weight": None}, ("normalize", "smoothing_weight")),
    )
    breaks: ClassVar[Mapping[str, str]] = {
        "weight_of_the_true_class at smoothing_weight": "has other classes' weights too",
        "weights_of_mixed_targets at smoothing_weight": "has other classes' weights too",
        "reweighted_fixed_point at smoothing_weight": "asks for the largest weight",
    }

    def __init__(
        self,
        *,
        normalize: Literal["samples", "weights"] = "samples",
        label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0,
        smoothing_weight: Literal["sample", "class"] = "sample",
    ) -> None:
        super().__init__(normalize=normalize)
        self.label_smoothing = label_smoothing
        self.smoothing_weight: SmoothingWeight = smoothing_weight

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of a batch; see `cross_entropy_loss`."""
        return adjusted_cross_entropy(
            logits,
            targets,
            UNADJUSTED,
            weight=self.weight,
            normalize=self.normalize,
            label_smoothing=self.label_smoothing,
            smoothing_weight=self.smoothing_weight,
        )
