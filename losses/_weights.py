"""Class weights from class counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

WeightScheme = Literal["none", "inverse", "inverse_sqrt", "effective_number", "power", "explicit"]


def class_weights(
    class_counts: Tensor | Sequence[int],
    *,
    scheme: WeightScheme,
    beta: float = 0.9999,
    power: float = 1.0,
    weights: Sequence[float] | None = None,
) -> Tensor | None:
    """Return a weight for every class, larger for rarer ones, whose mean is 1.

    With n the count of a class, the weight is proportional to 1/n (``inverse``), 1/sqrt(n)
    (``inverse_sqrt``), n^-power (``power``) or (1 - beta) / (1 - beta^n) (``effective_number``; Cui
    et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", eq. 2), which goes from
    no weights at beta = 0 to 1/n in the limit beta = 1. The weights sum to the number of classes
    that have samples (C as a rule); a class of count 0 gets weight 0 and leaves the others as they
    are. Public code divides by zero there, or gives such a class the largest weight.
    ``explicit`` weights are taken as they are, but for the 0.

    Args:
        class_counts: (C,) training images of each class.
        scheme: The rule, ``none`` for no weights at all.
        beta: Of ``effective_number``, 0 to 1.
        power: Of ``power``.
        weights: Of ``explicit``, one for each class.

    Returns:
        (C,) float64, or None for ``none``.

    Raises:
        ValueError: For counts that are negative, not finite or all 0, an unknown scheme, beta
            outside 0 to 1, a power that is not finite, or weights that are not C finite numbers
            that are not negative.

    >>> class_weights([100, 200, 50], scheme="inverse")
    tensor([0.8571, 0.4286, 1.7143], dtype=torch.float64)
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64)
    if counts.ndim != 1 or not bool((torch.isfinite(counts) & (counts >= 0)).all()):
        raise ValueError("class_counts must be C finite numbers that are not negative")
    present = counts > 0
    if not bool(present.any()):
        raise ValueError("class_counts are all 0: class weights need at least one training image")
    if scheme == "none":
        return None
    if scheme == "explicit":
        return _explicit(weights, counts)
    log_weights = _log_weights(counts[present], scheme=scheme, beta=beta, power=power)
    found = torch.zeros_like(counts)
    # A softmax of the logarithms normalises without overflow for any power.
    found[present] = log_weights.softmax(0) * present.sum()
    return found


def _explicit(weights: Sequence[float] | None, counts: Tensor) -> Tensor:
    """Return the weights as given, and 0 where the count is 0."""
    found = torch.as_tensor(() if weights is None else weights, dtype=torch.float64)
    if found.shape != counts.shape:
        raise ValueError(f"weights must be {len(counts)} numbers, one a class, not {len(found)}")
    if not bool((torch.isfinite(found) & (found >= 0)).all()):
        raise ValueError("weights must be finite numbers that are not negative")
    return torch.where(counts > 0, found, 0.0)


def _log_weights(counts: Tensor, *, scheme: WeightScheme, beta: float, power: float) -> Tensor:
    """Return the logarithm of the unnormalised weights of positive counts."""
    if scheme == "effective_number":
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must lie in 0 to 1, not {beta}")
        if beta == 1:
            return -counts.log()
        log_beta = math.log(beta) if beta > 0 else -math.inf
        return -torch.log(-torch.expm1(counts * log_beta))
    exponents = {"inverse": 1.0, "inverse_sqrt": 0.5, "power": power}
    if scheme not in exponents:
        raise ValueError(
            f"scheme must be none, effective_number, explicit, {', '.join(exponents)}, "
            f"not {scheme!r}"
        )
    if not math.isfinite(power):
        raise ValueError(f"power must be finite, not {power}")
    return -exponents[scheme] * counts.log()
