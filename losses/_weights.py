"""Class weights from class counts."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ._counts import checked_counts
from ._inputs import ClassValues, checked_values

WeightScheme = Literal["none", "inverse", "inverse_sqrt", "effective_number", "power", "explicit"]


def class_weights(
    class_counts: ClassValues,
    *,
    scheme: WeightScheme,
    beta: float = 0.9999,
    power: float = 1.0,
    weights: ClassValues | None = None,
) -> Tensor | None:
    """Return a weight for every class, larger for rarer ones, whose mean is 1.

    With n the count of a class, the weight is proportional to 1/n (``inverse``), 1/sqrt(n)
    (``inverse_sqrt``), n^-power (``power``) or (1 - beta) / (1 - beta^n) (``effective_number``; Cui
    et al. 2019, "Class-Balanced Loss Based on Effective Number of Samples", eq. 2), which goes from
    no weights at beta = 0 to 1/n in the limit beta = 1. The weights sum to the number of classes
    that have samples (C as a rule); a class of count 0 gets weight 0 and leaves the others as they
    are. Public code divides by zero there, or gives such a class the largest weight.
    ``explicit`` weights are taken as they are, but for those of classes without samples.

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
            outside 0 to 1, a power that is not finite, or weights that are not C finite numbers,
            above 0 for classes that have samples.

    >>> class_weights([100, 200, 50], scheme="inverse")
    tensor([0.8571, 0.4286, 1.7143], dtype=torch.float64)
    """
    counts = checked_counts(class_counts)
    present = counts > 0
    if scheme == "none":
        return None
    if scheme == "explicit":
        return _explicit(weights, counts)
    log_weights = _log_weights(counts[present], scheme=scheme, beta=beta, power=power)
    found = torch.zeros_like(counts)
    # A softmax of the logarithms normalises without overflow for any power.
    found[present] = log_weights.softmax(0) * present.sum()
    return found


def _explicit(weights: ClassValues | None, counts: Tensor) -> Tensor:
    """Return the weights as given, and 0 where the count is 0."""
    found = checked_values(() if weights is None else weights, len(counts), name="weights").double()
    missing = torch.nonzero((found == 0) & (counts > 0)).flatten().tolist()
    if missing:
        raise ValueError(
            f"weights must be above 0 for classes with training images: class {missing[0]} has "
            f"{counts[missing[0]].item():g} and a weight of 0"
        )
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
