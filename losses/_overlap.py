"""Overlap of predicted and true regions, class by class, and its mixture with other losses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ._fused import GradientInForward
from ._fused_overlap import SMALLEST, Index, can_fuse_overlap, overlap_with_gradient
from ._inputs import (
    ClassValues,
    as_float,
    as_labels,
    check_fit,
    check_labels,
    class_weight,
    counted_logits,
)
from ._reduction import Reduction

Regions = Literal["batch", "image"]


class Overlap(NamedTuple):
    """Sums over the pixels of a region, (1, C) for a batch or (N, C) for each image.

    Args:
        both: Of p t.
        predicted: Of p, or p^2.
        true: Of t, or t^2.
    """

    both: Tensor
    predicted: Tensor
    true: Tensor


def overlap(
    logits: Tensor,
    targets: Tensor,
    *,
    squared: bool,
    over: Regions,
    ignore_index: int,
) -> Overlap:
    """Return the overlap of softmax(logits), (N, C, ...), with labels (N, ...) or soft targets.

    Summed in float64 (float32 on devices without it): float16 would overflow at 65,504 pixels and
    float32 no longer counts beyond 16.8 million.

    Raises:
        IndexError: For a label outside 0 to C - 1 (on the CPU; never when compiled).
        ValueError: For an unknown region, or targets whose shape does not fit.
    """
    check_fit(logits, targets)
    if over not in ("batch", "image"):
        raise ValueError(f"over must be 'batch' or 'image', not {over!r}")
    p = counted_logits(as_float(logits), targets, ignore_index=ignore_index).softmax(dim=1)
    if targets.is_floating_point():
        t = targets.to(p)
        both = _summed(p * t, over=over)
        true = _summed(t * t if squared else t, over=over)
    else:
        valid = targets != ignore_index
        labels = torch.where(valid, targets, 0)
        check_labels(labels, p.shape[1])
        p = p * valid.unsqueeze(1)
        own = p.gather(1, labels.unsqueeze(1)).squeeze(1)
        both = _summed_by_label(own, labels, num_classes=p.shape[1], over=over)
        true = _summed_by_label(valid, labels, num_classes=p.shape[1], over=over)
    return Overlap(both, _summed(p * p if squared else p, over=over), true)


def _wide(values: Tensor) -> torch.dtype:
    return torch.float32 if values.device.type == "mps" else torch.float64


def _summed(values: Tensor, *, over: Regions) -> Tensor:
    """Return the sums of (N, C, ...) over the pixels of each region."""
    pixels = [d for d in range(values.ndim) if d != 1 and (d != 0 or over == "batch")]
    if not pixels:
        return values.to(_wide(values))
    total = values.sum(dim=pixels, dtype=_wide(values))
    return total.unsqueeze(0) if over == "batch" else total


def _summed_by_label(values: Tensor, labels: Tensor, *, num_classes: int, over: Regions) -> Tensor:
    """Return the sums of (N, ...) over the pixels of each region and label: no one-hot labels."""
    num_regions = 1 if over == "batch" else len(labels)
    if over == "image":
        images = torch.arange(num_regions, device=labels.device)
        labels = labels + num_classes * images.view(-1, *[1] * (labels.ndim - 1))
    sums = values.new_zeros(num_regions * num_classes, dtype=_wide(values))
    sums = sums.index_add(0, labels.flatten(), values.flatten().to(sums))
    return sums.view(num_regions, num_classes)


def overlap_loss(
    logits: Tensor,
    targets: Tensor,
    index: Index,
    *,
    over: Regions,
    weight: ClassValues | None,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
) -> Tensor:
    """Return 1 - overlap, meant over the classes that the targets of a region hold.

    Args:
        logits: (N, C) or (N, C, ...).
        targets: (N,) or (N, ...) int64 labels, or soft targets of the logits' shape.
        index: The overlap of a class, from its sums over a region.
        over: What a region is.
        weight: (C,) class weights, which multiply a class's loss.
        reduction: ``none`` gives (1, C) or (N, C) with 0 where a class is absent; ``mean``, over
            regions and classes that are there, and ``sum`` a scalar.
        ignore_index: The label of pixels that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1 (on the CPU; never when compiled).
        ValueError: For targets that do not fit, an unknown region or reduction.
    """
    targets = as_labels(targets)
    composed = partial(
        _composed,
        targets=targets,
        index=index,
        over=over,
        weight=weight,
        reduction=reduction,
        ignore_index=ignore_index,
    )
    if over != "batch" or reduction != "mean":
        return composed(logits)
    return _fused(composed, logits, targets, index, weight=weight, ignore_index=ignore_index)


def mixture(
    logits: Tensor,
    targets: Tensor,
    index: Index,
    *,
    ratio: float,
    over: Regions,
    weight: Tensor | None,
    samples: Callable[[Tensor], Tensor],
    is_cross_entropy: bool,
) -> Tensor:
    """Return ``ratio`` times `overlap_loss` and the rest of a loss of samples.

    Which is what ``samples`` gives from the logits, the mean of weighted cross-entropies or another
    one. A share of 0 is not computed.
    """
    if ratio == 0:
        return samples(logits)
    targets = as_labels(targets)
    regions = partial(overlap_loss, targets=targets, index=index, over=over, weight=weight)
    if ratio == 1:
        return regions(logits)

    def composed(logits: Tensor) -> Tensor:
        return ratio * regions(logits) + (1 - ratio) * samples(logits)

    if over != "batch" or not is_cross_entropy:
        return composed(logits)
    return _fused(composed, logits, targets, index, weight=weight, ratio=ratio)


def _fused(
    composed: Callable[[Tensor], Tensor],
    logits: Tensor,
    targets: Tensor,
    index: Index,
    *,
    weight: ClassValues | None,
    ratio: float = 1.0,
    ignore_index: int = -100,
) -> Tensor:
    """Return `composed(logits)`, for labels of few classes with the gradient that goes with it."""
    if not can_fuse_overlap(logits, targets, weight=weight, ignore_index=ignore_index):
        return composed(logits)
    logits = as_float(logits)
    made = overlap_with_gradient(
        logits.detach(), targets, index, weight=class_weight(weight, logits), ratio=ratio
    )
    return composed(logits) if made is None else GradientInForward.apply(logits, made, composed)


def _composed(
    logits: Tensor,
    targets: Tensor,
    index: Index,
    *,
    over: Regions,
    weight: ClassValues | None,
    reduction: Reduction,
    ignore_index: int,
) -> Tensor:
    found = overlap(logits, targets, squared=index.squared, over=over, ignore_index=ignore_index)
    below = index.predicted * found.predicted + index.true * found.true + index.smooth
    below = (below + index.both * found.both).clamp_min(SMALLEST)
    kept = torch.where(found.true > 0, 1 - (index.above * found.both + index.smooth) / below, 0)
    factor = class_weight(weight, kept)
    if factor is not None:
        kept = kept * factor
    kept = kept.to(as_float(logits))
    if reduction == "none":
        return kept
    if reduction == "sum":
        return kept.sum()
    if reduction == "mean":
        return kept.sum() / (found.true > 0).sum().clamp_min(1)
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}")
