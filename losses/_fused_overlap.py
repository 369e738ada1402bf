"""Value and gradient of overlap losses on batches of labels, with few classes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ._fused import Made, wants_gradient_alone
from ._inputs import all_count, check_labels

# Sums and slopes of classes are computed in Python, number by number: up to so many classes that
# costs less than starting some thirty operations on tensors.
MAX_CLASSES = 128
# Of more logits the composition is as fast, since it has no one-hot labels in its memory.
MAX_LOGITS = 2**15
SMALLEST = 1e-12  # number below the line


class Index(NamedTuple):
    """The overlap of a class, 1 where it is whole: above / below the line.

    Above is ``above`` times sum p t, plus ``smooth``; below is ``both`` times sum p t, plus
    ``predicted`` times sum p, plus ``true`` times sum t, plus ``smooth``. Squared, the last two
    sums are of p^2 and t^2.
    """

    above: float
    both: float
    predicted: float
    true: float
    smooth: float
    squared: bool = False


def can_fuse_overlap(logits: Tensor, labels: Tensor, *, weight: object, ignore_index: int) -> bool:
    """Tell whether few logits want a first derivative, by them alone, and all labels count."""
    return (
        logits.ndim == 2
        and logits.shape[1] <= MAX_CLASSES
        and logits.numel() <= MAX_LOGITS
        and labels.dtype == torch.int64
        and labels.shape == logits.shape[:1]
        and wants_gradient_alone(logits, weight if isinstance(weight, Tensor) else None)
        and all_count(labels, ignore_index=ignore_index)
    )


class _Overlaps(NamedTuple):
    """The loss of the classes that are there, and its slopes by their sums."""

    value: float
    by_both: list[float]
    by_predicted: list[float]


def overlap_with_gradient(
    logits: Tensor, labels: Tensor, index: Index, *, weight: Tensor | None, ratio: float
) -> Made | None:
    """Return ``ratio`` times the overlap loss, plus the rest of the cross-entropy.

    The classes come first, so that softmax and sums go through whole vector registers. By log p, a
    sum of p^n has the slope n p^n.

    Returns:
        None where nothing is below the line.

    Raises:
        IndexError: For a label out of range.
    """
    N, C = logits.shape
    log_p = torch.log_softmax(logits.t(), dim=0)
    terms = logits.new_zeros(4 if ratio < 1 else 3, C, N)
    true, predicted, both = terms[0], terms[1], terms[2]
    at = labels.unsqueeze(0)
    try:
        true.scatter_(0, at, 1)
    except RuntimeError:
        check_labels(labels, C)
        raise
    p = torch.exp(log_p, out=predicted)
    torch.mul(p, true, out=both)
    if index.squared:
        predicted.mul_(p)
    if ratio < 1:
        terms[3].scatter_(0, at, log_p.gather(0, at))  # a product would be NaN for a log p of -inf
    # In float64, which every sample counts in; a sample's own numbers are as the logits are.
    sums = terms.sum(dim=2, dtype=torch.float64).tolist()
    factors = [1.0] * C if weight is None else weight.tolist()
    found = _overlaps(sums, factors, index, ratio=ratio)
    if found is None:
        return None
    value, rest = found.value, [(ratio - 1) / N * factor for factor in factors]
    if ratio < 1:
        value += sum(map(operator.mul, rest, sums[3]))
    slopes = torch.tensor([rest, found.by_predicted, found.by_both], dtype=p.dtype)
    slope = terms[:3].mul_(slopes.unsqueeze(2)).sum(dim=0)
    gradient = torch._log_softmax_backward_data(slope, log_p, 0, p.dtype)
    return Made(logits.new_full((), value), gradient.t().contiguous())


def _overlaps(
    sums: Sequence[Sequence[float]], factors: Sequence[float], index: Index, *, ratio: float
) -> _Overlaps | None:
    """Return ``ratio`` times the mean over the classes that are there, times their factors."""
    share = ratio / max(1, len(factors) - sums[0].count(0.0))
    above, of_both, of_predicted, of_true, smooth, squared = index
    power = 2 if squared else 1
    value, by_both, by_predicted = 0.0, [], []
    for true, predicted, both, factor in zip(*sums[:3], factors, strict=True):
        below = of_both * both + of_predicted * predicted + of_true * true + smooth
        if below < SMALLEST:
            return None
        overlap = (above * both + smooth) / below
        unit = share * factor * (true > 0)
        value += unit * (1 - overlap)
        by_both.append(unit * (overlap * of_both - above) / below)
        by_predicted.append(unit * power * overlap * of_predicted / below)
    return _Overlaps(value, by_both, by_predicted)
