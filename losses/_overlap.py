"""Overlap of predicted and true regions, class by class, and losses that mix it with others."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ._base import as_float
from ._means import LogitsLoss
from ._reduction import Reduction
from ._targets import check_labels
from .softmax_focal import softmax_focal_loss

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
        ValueError: For an unknown region.
    """
    if over not in ("batch", "image"):
        raise ValueError(f"over must be 'batch' or 'image', not {over!r}")
    logits = as_float(logits)
    p = logits.softmax(dim=1)
    if targets.is_floating_point():
        t = targets.to(p)
    else:
        valid = targets != ignore_index
        labels = torch.where(valid, targets, 0)
        check_labels(labels, logits.shape[1])
        t = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(p) * valid.unsqueeze(1)
        p = p * valid.unsqueeze(1)
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    pixels = [d for d in range(logits.ndim) if d != 1 and (d != 0 or over == "batch")]

    def summed(values: Tensor) -> Tensor:
        if not pixels:
            return values.to(wide)
        total = values.sum(dim=pixels, dtype=wide)
        return total.unsqueeze(0) if over == "batch" else total

    if squared:
        return Overlap(summed(p * t), summed(p * p), summed(t * t))
    return Overlap(summed(p * t), summed(p), summed(t))


def mean_over_present(
    values: Tensor, present: Tensor, *, weight: Tensor | None, reduction: Reduction, like: Tensor
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
    if weight is not None:
        kept = kept * weight.to(kept)
    kept = kept.to(like)
    if reduction == "none":
        return kept
    if reduction == "sum":
        return kept.sum()
    if reduction == "mean":
        return kept.sum() / present.sum().clamp_min(1)
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}")


class OverlapMixture(LogitsLoss):
    """``ratio`` times a loss of regions, and the rest of cross-entropy or focal loss of samples."""

    def __init__(self, *, ratio: float, gamma: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.gamma = gamma

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mixture of a batch."""
        regions = samples = as_float(logits).new_zeros(())
        if self.ratio > 0:
            regions = self.region_loss(logits, targets)
        if self.ratio < 1:
            samples = softmax_focal_loss(logits, targets, gamma=self.gamma, weight=self.weight)
        return self.ratio * regions + (1 - self.ratio) * samples

    def region_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch's regions."""
        raise NotImplementedError
