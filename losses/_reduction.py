"""The one stated normalisation: a mean is the sum over what counts divided by how much counts."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ._inputs import all_count, class_values

Reduction = Literal["none", "mean", "sum"]
SampleNormalizer = Literal["samples", "weights"]


def reduce_values(values: Tensor, *, reduction: Reduction, normalizer: Tensor | int) -> Tensor:
    """Return the values themselves, their sum, or sum / normalizer for ``reduction="mean"``.

    A normalizer of 0 means that nothing counts: the mean is then 0 with zero gradient and the graph
    is kept, so that a batch of ignored samples is a step without effect instead of a NaN.

    Raises:
        ValueError: If the reduction is none of the three.
    """
    if reduction == "none":
        return values
    if reduction == "sum":
        return values.sum()
    if reduction == "mean":
        if isinstance(normalizer, int) and normalizer == values.numel():
            return values.mean()  # the same bits by one operation
        return values.sum() / as_divisor(normalizer)
    raise ValueError(f"reduction must be 'none', 'mean' or 'sum', not {reduction!r}")


def as_divisor(normalizer: Tensor | int) -> Tensor | int:
    """Return a count or sum of weights to divide by, 1 instead of 0."""
    if isinstance(normalizer, int):
        return max(normalizer, 1)
    if normalizer.is_floating_point():
        return torch.where(normalizer > 0, normalizer, 1)
    return normalizer.clamp_min(1)


def sample_normalizer(
    targets: Tensor,
    weight: Tensor | None,
    *,
    normalize: SampleNormalizer,
    ignore_index: int | None,
) -> Tensor | int:
    """Return the number of valid samples, or the sum of their weights, a scalar.

    Labels that are known to count all of them (those of an ``ignore_index`` of None are) are
    counted without an operation on tensors.

    Raises:
        ValueError: If `normalize` is neither.
    """
    check_normalize(normalize)
    if weight is not None and normalize == "weights":
        return class_values(weight, targets, ignore_index=ignore_index).sum()
    if targets.is_floating_point():
        # Not in 16 bits, which count to 256 or 2048 at most.
        dtype = torch.promote_types(targets.dtype, torch.float32)
        return targets.new_full((), targets.numel() // targets.shape[1], dtype=dtype)
    if ignore_index is None or all_count(targets, ignore_index=ignore_index):
        return targets.numel()
    return torch.count_nonzero(targets != ignore_index)


def check_normalize(normalize: SampleNormalizer) -> None:
    """Raise ValueError for a normalisation that is neither ``samples`` nor ``weights``."""
    if normalize not in ("samples", "weights"):
        raise ValueError(f"normalize must be 'samples' or 'weights', not {normalize!r}")
