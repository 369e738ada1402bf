"""Overlap of predicted and true regions, class by class, and its mixture with other losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ._inputs import ClassValues, as_float, check_fit, check_labels, class_weight
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
    p = as_float(logits).softmax(dim=1)
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


def mean_over_present(
    values: Tensor,
    present: Tensor,
    *,
    weight: ClassValues | None,
    reduction: Reduction,
    like: Tensor,
) -> Tensor:
    """Return the values of the classes that are present, weighed, as a mean over those or a sum.

    Args:
        values: (R, C) one for each region and class.
        present: (R, C) whether the class is in the targets of the region.
        weight: (C,) class weights.
        reduction: ``none`` gives (R, C) with 0 where a class is absent.
        like: Has the type of what is returned.

    Raises:
        ValueError: If the reduction is none of the three.
    """
    kept = torch.where(present, values, 0)
    factor = class_weight(weight, kept)
    if factor is not None:
        kept = kept * factor
    kept = kept.to(like)
    if reduction == "none":
        return kept
    if reduction == "sum":
        return kept.sum()
    if reduction == "mean":
        return kept.sum() / present.sum().clamp_min(1)
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}")


def mixture(
    ratio: float, *, regions: Callable[[], Tensor], samples: Callable[[], Tensor]
) -> Tensor:
    """Return ``ratio`` times one loss and the rest of the other; a share of 0 is not computed."""
    if ratio == 0:
        return samples()
    if ratio == 1:
        return regions()
    return ratio * regions() + (1 - ratio) * samples()
