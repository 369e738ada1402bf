"""What losses derive from the number of training images of each class."""

from __future__ import annotations

import torch
from torch import Tensor

from ._inputs import ClassValues, checked_values

# In the place of log 0: far below any logit, and finite, so that a soft target of 0 times it is 0.
MASKED = -1e9


def checked_counts(class_counts: ClassValues, num_classes: int | None = None) -> Tensor:
    """Return the counts as float64 (C,).

    Raises:
        ValueError: If they are not `num_classes` numbers or, never when compiled, negative, not
            finite or all 0.
    """
    counts = checked_values(class_counts, num_classes, name="class_counts").double()
    if not torch.compiler.is_compiling() and not bool((counts > 0).any()):
        raise ValueError("class_counts are all 0: at least one class needs a training image")
    return counts


def log_prior(class_counts: ClassValues, *, num_classes: int | None = None) -> Tensor:
    """Return the logarithm of each class's share of the training images, float64 (C,).

    A class without images gets `MASKED`: it takes no part in the softmax it is added to.

    Raises:
        ValueError: For counts that are negative, not finite or all 0.

    >>> log_prior([3, 1, 0]).exp()
    tensor([0.7500, 0.2500, 0.0000], dtype=torch.float64)
    """
    counts = checked_counts(class_counts, num_classes)
    shares = counts / counts.sum()
    return torch.where(counts > 0, shares.log(), MASKED)


def prior_offset(
    class_counts: ClassValues, *, num_classes: int | None = None, tau: float
) -> Tensor:
    """Return tau log prior, float64 (C,); a class without images is masked whatever tau is.

    Raises:
        ValueError: For counts that are negative, not finite or all 0.
    """
    prior = log_prior(class_counts, num_classes=num_classes)
    return (tau * prior).where(prior > MASKED, MASKED)


def over_classes(values: Tensor, logits: Tensor) -> Tensor:
    """Return (C,) values so shaped, and of such a type, that they add to logits (N, C, ...)."""
    return values.to(logits).view(-1, *[1] * (logits.ndim - 2))
