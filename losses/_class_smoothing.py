"""Cross-entropy with labels smoothed by as much as their class is."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ._counts import over_classes
from ._inputs import (
    ClassValues,
    as_float,
    as_labels,
    check_fit,
    check_labels,
    class_weight,
    counted_logits,
)
from ._reduction import Reduction, SampleNormalizer, reduce_values, sample_normalizer


def class_smoothed(
    logits: Tensor,
    targets: Tensor,
    *,
    strengths: Tensor,
    weight: ClassValues | None,
    reduction: Reduction = "mean",
    normalize: SampleNormalizer,
    ignore_index: int = -100,
    spread: Literal["others", "all"] = "others",
) -> Tensor:
    """Return -(1 - s_y) log p_y - s_y times the mean of -log p_c over the classes of ``spread``.

    Soft targets give the mixture of the losses of their classes. A weight multiplies the whole loss
    of a sample. A class whose logit is minus infinity is none of a sample: nothing is spread over
    it, and the loss is infinite only where it is the target.

    Args:
        logits: (N, C) or (N, C, ...).
        targets: (N,) or (N, ...) int64 labels, or floating class probabilities of the logits'
            shape.
        strengths: (C,) s of each class.
        weight: (C,) class weights.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: the number of valid ``samples`` or their ``weights``.
        ignore_index: The label of samples that do not count.
        spread: Over the ``others`` than the true class, or over ``all``.
    """
    check_fit(logits, targets)
    logits, targets = as_float(logits), as_labels(targets)
    weight = class_weight(weight, logits)
    logits = counted_logits(logits, targets, ignore_index=ignore_index)
    is_possible = logits != -torch.inf
    num_possible = is_possible.sum(dim=1, keepdim=True)
    nll = -logits.log_softmax(dim=1).where(is_possible, 0)
    total = nll.sum(dim=1, keepdim=True)
    share = over_classes(strengths, logits)
    # Of every class, were it the true one: linear in soft targets.
    if spread == "all":
        losses = torch.lerp(nll, total / num_possible, share)
    else:
        losses = torch.lerp(nll, (total - nll) / (num_possible - 1).clamp_min(1), share)
    losses = losses.where(is_possible, torch.inf)
    if weight is not None:
        losses = losses * over_classes(weight, logits)
    if targets.is_floating_point():
        targets = targets.to(logits)
        values = (targets * losses.where(is_possible | (targets != 0), 0)).sum(dim=1)
    else:
        valid = targets != ignore_index
        labels = torch.where(valid, targets, 0)
        check_labels(labels, logits.shape[1])
        values = losses.gather(1, labels.unsqueeze(1)).squeeze(1).where(valid, 0)
    normalizer = sample_normalizer(targets, weight, normalize=normalize, ignore_index=ignore_index)
    return reduce_values(values, reduction=reduction, normalizer=normalizer)
