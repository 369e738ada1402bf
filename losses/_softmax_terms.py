"""Losses that are a function of each sample's cross-entropy, and smoothed cross-entropies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ._adjustment import UNADJUSTED, Adjustment
from ._few_classes import CrossEntropies, are_few_classes
from ._fused import GradientInForward, can_fuse
from ._fused_softmax import Samples, Term, softmax_with_gradient
from ._inputs import check_labels, class_values, known_labels
from ._reduction import Reduction, as_divisor, reduce_values

SmoothingWeight = Literal["sample", "class"]


def reduce_terms(
    logits: Tensor,
    labels: Tensor,
    term: Term,
    *,
    values: Sequence[Tensor | None] = (),
    adjustment: Adjustment = UNADJUSTED,
    reduction: Reduction,
    normalizer: Tensor | int,
    ignore_index: int,
) -> Tensor:
    """Return the losses term(CE_i, *values_i) of samples, or their sum, or sum / normalizer.

    Args:
        logits: (N, C) or (N, C, ...), float32 or float64.
        labels: (N,) or (N, ...) int64.
        term: Gives the losses of samples from their cross-entropies, (N, ...), and `values`,
            element by element. That of a cross-entropy of 0, as ignored samples have it, is 0.
        values: What else `term` needs of each sample, (N, ...).
        adjustment: What is done to the logits before the softmax.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        normalizer: What ``mean`` divides by; where it is 0 the mean is 0.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1.
        ValueError: For an unknown reduction.
    """
    composed = partial(
        _composed,
        labels=labels,
        term=term,
        values=values,
        adjustment=adjustment,
        reduction=reduction,
        normalizer=normalizer,
        ignore_index=ignore_index,
    )
    if not (
        can_fuse("softmax", logits, *values, *adjustment, normalizer)
        and reduction in ("mean", "sum")
        and labels.dtype == torch.int64
        and labels.shape == logits.shape[:1] + logits.shape[2:]
    ):
        return composed(logits)
    made = softmax_with_gradient(
        logits.detach(),
        Samples(labels, ignore_index, tuple(values)),
        term=term,
        adjustment=adjustment,
        divisor=as_divisor(normalizer) if reduction == "mean" else 1.0,
    )
    return GradientInForward.apply(logits, made, composed)


def _composed(
    logits: Tensor,
    *,
    labels: Tensor,
    term: Term,
    values: Sequence[Tensor | None],
    adjustment: Adjustment,
    reduction: Reduction,
    normalizer: Tensor | int,
    ignore_index: int,
) -> Tensor:
    known, all_count = labels, isinstance(normalizer, int)
    if adjustment.own is not None and not all_count:
        known = known_labels(labels, ignore_index=ignore_index)
        check_labels(known, logits.shape[1])
    try:
        logits = adjustment.of(logits, known)
    except IndexError:
        check_labels(known, logits.shape[1])
        raise
    if all_count and are_few_classes(logits, labels):
        nll = CrossEntropies.apply(logits, labels)
    else:
        nll = F.cross_entropy(logits, labels, reduction="none", ignore_index=ignore_index)
    return reduce_values(term(nll, *values), reduction=reduction, normalizer=normalizer)


def check_smoothing(label_smoothing: float, smoothing_weight: SmoothingWeight) -> None:
    """Raise ValueError for smoothing outside 0 to 1, or an unknown weight of it."""
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie in 0 to 1, not {label_smoothing}")
    if smoothing_weight not in ("sample", "class"):
        raise ValueError(f"smoothing_weight must be 'sample' or 'class', not {smoothing_weight!r}")


def smoothed_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    weight: Tensor | None,
    label_smoothing: float,
    smoothing_weight: SmoothingWeight,
    ignore_index: int,
) -> Tensor:
    """Return the weighted cross-entropy of each sample, (N, ...), with labels smoothed.

    Its part that is spread evenly is -1/C sum_c log p_c times the weight of the ``sample``: that of
    its label, or sum_c t_c w_c of a soft target t. With the weight of each ``class`` in its place,
    -1/C sum_c w_c log p_c as in `torch.nn.functional.cross_entropy`, every sample asks for the
    class with the largest weight.
    """
    smoothed = partial(
        F.cross_entropy, logits, targets, reduction="none", ignore_index=ignore_index
    )
    if weight is None or label_smoothing == 0 or smoothing_weight == "class":
        return smoothed(weight=weight, label_smoothing=label_smoothing)
    of_samples = class_values(weight, targets, ignore_index=ignore_index)
    if not targets.is_floating_point():
        return smoothed(label_smoothing=label_smoothing) * of_samples
    nll = -logits.log_softmax(dim=1)
    own = class_values(weight, targets * nll, ignore_index=ignore_index)
    return torch.lerp(own, nll.mean(dim=1) * of_samples, label_smoothing)
