"""Focal loss on a softmax."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from ._base import FixedPoint, Idle, Limits, SampleMean
from ._counts import over_classes
from ._inputs import (
    ClassValues,
    as_float,
    as_labels,
    check_fit,
    class_values,
    class_vector,
    class_weight,
    counted_logits,
    listed_values,
)
from ._modulator import check_gamma, focal_modulator
from ._reduction import Reduction, SampleNormalizer, reduce_values, sample_normalizer
from ._sample_loss import SampleLoss
from ._softmax_terms import (
    SmoothingWeight,
    check_smoothing,
    nll_of_shares,
    smoothed_cross_entropy,
)
from ._terms import SampleTerm

Probability = Literal["model", "weighted"]


def softmax_focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: ClassValues | None = None,
    gamma: float = 2.0,
    scale: float = 1.0,
    probability: Probability = "model",
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: SampleNormalizer = "samples",
    label_smoothing: float = 0.0,
    smoothing_weight: SmoothingWeight = "sample",
    ignore_index: int = -100,
) -> Tensor:
    """Return -sum_c t_c a_c w_c (1 - p_c)^gamma log p_c with p = softmax(logits).

    The focal loss of Lin et al. 2017 ("Focal Loss for Dense Object Detection", eq. 5) with a
    softmax in the place of their sigmoids; for a label y the sum is the one term c = y. At gamma =
    0 and without alpha it is the cross-entropy bit for bit. For a label the gradient with respect
    to the logits is the weighted cross-entropy's times a factor between 0 and 1 + gamma: finite for
    any gamma and logits.

    p is the model's own probability: weights multiply the finished term. LDAM-DRW, IB-Loss and
    their children read p off the weighted cross-entropy, which is p^w: their class-balanced focal
    loss is another function (``probability="weighted"``), and IB-Loss multiplies it by 10
    (``scale``). With soft targets some packages use (1 - exp(-ce))^gamma ce instead of this sum,
    and with smoothed labels (1 - p_y)^gamma times the smoothed cross-entropy. The evenly spread
    part of a smoothed label has the alpha and weight of the sample, as in `cross_entropy_loss`.

    Args:
        logits: (N, C) or (N, C, ...).
        targets: (N,) or (N, ...) int64 labels, or floating class probabilities of the logits'
            shape.
        alpha: (C,) factor of each class. One number for all classes would only rescale the loss,
            and with it the learning rate.
        gamma: How strongly samples that the model already gets right are played down.
        scale: Factor of the whole loss.
        probability: Whether 1 - p is of the ``model``, or of the ``weighted`` likelihood p^w.
        weight: (C,) class weights. They act like alpha and also count in ``normalize="weights"``.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: the number of valid ``samples`` or their ``weights``.
        label_smoothing: Share of each target that is spread evenly over all classes, 0 to 1.
        smoothing_weight: What weighs that share: alpha and weight of the ``sample`` or of each
            ``class``.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1.
        ValueError: For gamma below 0, label smoothing outside 0 to 1, an alpha or weights that are
            not C numbers, targets that do not fit, an unknown probability, weight of smoothing,
            reduction or normalisation.

    >>> logits = torch.tensor([[0.0, 0.0]])
    >>> softmax_focal_loss(logits, torch.tensor([1]))  # (1 - 1/2)^2 log 2
    tensor(0.1733)
    """
    check_gamma(gamma)
    if probability not in ("model", "weighted"):
        raise ValueError(f"probability must be 'model' or 'weighted', not {probability!r}")
    check_smoothing(label_smoothing, smoothing_weight)
    check_fit(logits, targets)
    logits, targets = as_float(logits), as_labels(targets)
    weight = class_weight(weight, logits)
    factor = _class_factor(logits, alpha=alpha, weight=weight)
    power = weight if probability == "weighted" else None
    if label_smoothing == 0 and not targets.is_floating_point():
        term = SampleTerm(gamma=gamma, gain=scale)
        loss = SampleLoss(targets, term, reduction, normalize, ignore_index, weight, factor, power)
        return loss.of(logits)
    targets = targets.to(logits) if targets.is_floating_point() else targets
    normalizer = sample_normalizer(targets, weight, normalize=normalize, ignore_index=ignore_index)
    values = _spread_values(
        counted_logits(logits, targets, ignore_index=ignore_index),
        targets,
        gamma=gamma,
        factor=factor,
        power=power,
        label_smoothing=label_smoothing,
        smoothing_weight=smoothing_weight,
        ignore_index=ignore_index,
    )
    values = values if scale == 1 else scale * values
    return reduce_values(values, reduction=reduction, normalizer=normalizer)


def _class_factor(
    logits: Tensor, *, alpha: ClassValues | None, weight: Tensor | None
) -> Tensor | None:
    """Return alpha times weight, (C,), or None where neither is given."""
    if alpha is None:
        return weight
    factor = class_vector(alpha, logits.shape[1], name="alpha").to(logits)
    return factor if weight is None else factor * weight


def _spread_values(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float,
    factor: Tensor | None,
    power: Tensor | None,
    label_smoothing: float,
    smoothing_weight: SmoothingWeight,
    ignore_index: int,
) -> Tensor:
    """Return the loss of each sample, (N, ...), whose target is spread over classes."""
    if gamma == 0:
        return smoothed_cross_entropy(
            logits,
            targets,
            weight=factor,
            label_smoothing=label_smoothing,
            smoothing_weight=smoothing_weight,
            ignore_index=ignore_index,
        )
    focal = partial(
        _focal_values, logits, gamma=gamma, factor=factor, power=power, ignore_index=ignore_index
    )
    values = focal(targets)
    if label_smoothing == 0:
        return values
    # Without weights the two are one, and to the last bit only if computed alike.
    if smoothing_weight == "class" and factor is not None:
        even = focal(torch.full_like(logits, 1 / logits.shape[1]))
    else:
        of_samples = partial(class_values, targets=targets, ignore_index=ignore_index)
        nll = -logits.log_softmax(dim=1)
        modulated = nll if power is None else of_samples(power).unsqueeze(1) * nll
        even = (focal_modulator(modulated, gamma=gamma) * nll).mean(dim=1)
        even = even if factor is None else even * of_samples(factor)
    even = even if targets.is_floating_point() else even * (targets != ignore_index)
    return torch.lerp(values, even, label_smoothing)


def _focal_values(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float,
    factor: Tensor | None,
    power: Tensor | None,
    ignore_index: int,
) -> Tensor:
    """Return the loss of each sample, (N, ...), with (C,) factors and powers of p, or None."""
    if not targets.is_floating_point():
        nll = F.cross_entropy(logits, targets, reduction="none", ignore_index=ignore_index)
        of_labels = partial(class_values, targets=targets, ignore_index=ignore_index)
        parts = [None if part is None else of_labels(part) for part in (factor, power)]
        return SampleTerm(gamma=gamma).of(nll, *parts).values
    nll = nll_of_shares(logits, targets)
    modulated = nll if power is None else over_classes(power, logits) * nll
    terms = targets * focal_modulator(modulated, gamma=gamma) * nll
    if factor is None:
        return terms.sum(dim=1)
    return class_values(factor, terms, ignore_index=ignore_index)


class SoftmaxFocal(SampleMean):
    """Focal loss on a softmax: cross-entropy that plays down samples the model already gets right.

    Args:
        gamma: How strongly; 0 is cross-entropy.
        alpha: Factor of each class: a list in label order, or in a config by class name, as in
            {cat: 1, dog: 3}.
        scale: Factor of the whole loss; IB-Loss's code multiplies its focal loss by 10.
        probability: Whose 1 - p plays samples down: the model's, or the weighted likelihood's p^w,
            as LDAM-DRW's code has it.
        normalize: What the batch mean divides by: the number of samples, or the sum of their class
            weights.
        label_smoothing: Share of each target that is spread evenly over all classes.
        smoothing_weight: What weighs that share: alpha and class weight of the sample, or of each
            class.
    """

    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    aims_at: ClassVar[str] = "samples that the model still gets wrong"
    fixed_point: ClassVar[FixedPoint] = "none"
    breaks: ClassVar[Mapping[str, str]] = {
        "doubled_weights at probability": "p^w is not linear in w",
        "weight_of_the_true_class at probability": "p^w is not linear in w",
        "weights_of_mixed_targets at probability": "p^w is not linear in w",
        "weight_of_the_true_class at smoothing_weight": "has other classes' weights too",
        "weights_of_mixed_targets at smoothing_weight": "has other classes' weights too",
    }
    equals: ClassVar[Limits] = (({"gamma": 0.0}, "cross_entropy", {}),)
    idle: ClassVar[Idle] = (
        ({"gamma": 0.0}, ("probability",)),
        ({"label_smoothing": 0.0}, ("smoothing_weight",)),
        ({"weight": None}, ("normalize", "probability")),
        ({"weight": None, "alpha": None}, ("smoothing_weight",)),
    )

    alpha: Tensor | None

    def __init__(
        self,
        num_classes: int,
        *,
        gamma: Annotated[float, Ge(0)] = 2.0,
        alpha: tuple[float, ...] | dict[str, float] | None = None,
        scale: Annotated[float, Gt(0)] = 1.0,
        probability: Literal["model", "weighted"] = "model",
        normalize: Literal["samples", "weights"] = "samples",
        label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0,
        smoothing_weight: Literal["sample", "class"] = "sample",
    ) -> None:
        super().__init__(normalize=normalize)
        self._num_classes = num_classes
        self.gamma = gamma
        self.scale = scale
        self.probability: Probability = probability
        self.label_smoothing = label_smoothing
        self.smoothing_weight: SmoothingWeight = smoothing_weight
        factors = None if alpha is None else listed_values(alpha, num_classes, name="alpha")
        # Not persistent: it is a key of the configuration, which is where a run takes it from.
        self.register_buffer("alpha", factors, persistent=False)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean focal loss of a batch; see `softmax_focal_loss`."""
        return softmax_focal_loss(
            logits,
            targets,
            alpha=self.alpha,
            gamma=self.gamma,
            scale=self.scale,
            probability=self.probability,
            weight=self.weight,
            normalize=self.normalize,
            label_smoothing=self.label_smoothing,
            smoothing_weight=self.smoothing_weight,
        )
