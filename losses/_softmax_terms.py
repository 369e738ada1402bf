"""Cross-entropies of smoothed labels."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ._inputs import class_values

SmoothingWeight = Literal["sample", "class"]


def check_smoothing(label_smoothing: float, smoothing_weight: SmoothingWeight) -> None:
    """Raise ValueError for smoothing outside 0 to 1, or an unknown weight of it."""
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie in 0 to 1, not {label_smoothing}")
    if smoothing_weight not in ("sample", "class"):
        raise ValueError(f"smoothing_weight must be 'sample' or 'class', not {smoothing_weight!r}")


def nll_of_shares(logits: Tensor, targets: Tensor) -> Tensor:
    """Return -log p of logits (N, C, ...), and 0 where a soft target has no share of the class.

    There p may be 0.
    """
    return -logits.log_softmax(dim=1).masked_fill(targets == 0, 0)


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
