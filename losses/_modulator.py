"""The focal modulator."""

from __future__ import annotations

import torch
from torch import Tensor


def focal_modulator(nll: Tensor, *, gamma: float) -> Tensor:
    """Return (1 - p)^gamma for a negative log-likelihood -log p, with finite derivatives."""
    return power_of_miss(minus_miss(nll), gamma=gamma)


def minus_miss(nll: Tensor) -> Tensor:
    """Return p - 1 for a negative log-likelihood -log p; it cancels only where it is compiled."""
    # Inductor evaluates expm1 once per logit instead of once per sample; 1 - exp is as good as the
    # cross-entropy itself, whose absolute error is of the same size.
    return torch.exp(-nll) - 1 if torch.compiler.is_compiling() else torch.expm1(-nll)


def power_of_miss(minus: Tensor, *, gamma: float) -> Tensor:
    """Return (1 - p)^gamma, from p - 1 of a cross-entropy in the same precision.

    Raised to a gamma below 1 it has an infinite slope at p = 1, which times a loss of 0 is NaN
    (below 2, an infinite curvature); so 1 - p is held above eps^2, below which no nonzero value of
    it can lie next to such a cross-entropy.
    """
    if gamma == 2:  # cheaper as a product, and whatever its sign: small batches notice
        return minus * minus
    miss = -minus
    if gamma < 2:
        miss = miss.clamp_min(torch.finfo(minus.dtype).eps ** 2)
    return miss.pow(gamma)


def distance_modulator(logits: Tensor, targets: Tensor, *, gamma: float) -> Tensor:
    """Return |y - p|^gamma with p = sigmoid(logits), with finite derivatives as above.

    y - p is y (1 - p) - (1 - y) p, which does not cancel at targets of 0 and 1.
    """
    gap = (targets * logits.neg().sigmoid() - (1 - targets) * logits.sigmoid()).abs()
    return gap.clamp_min(torch.finfo(gap.dtype).eps ** 2).pow(gamma)


def check_gamma(gamma: float) -> None:
    """Raise ValueError for a gamma below 0, which would reward easy samples."""
    if not gamma >= 0:
        raise ValueError(f"gamma must be at least 0, not {gamma}")
