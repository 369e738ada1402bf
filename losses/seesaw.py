"""Seesaw loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from ._base import FixedPoint, Idle, Limits, SampleMean
from ._counts import MASKED, checked_counts, over_classes
from ._inputs import ClassValues, as_float, check_labels, check_labels_fit, known_labels
from ._reduction import Reduction, SampleNormalizer
from .cross_entropy import cross_entropy_loss


def seesaw_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    class_counts: ClassValues,
    p: float = 0.8,
    q: float = 2.0,
    eps: float = 0.0,
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: SampleNormalizer = "samples",
    ignore_index: int = -100,
) -> Tensor:
    """Return -log(exp(x_y) / (exp(x_y) + sum_{c != y} S_yc exp(x_c))).

    Wang et al. 2021, "Seesaw Loss for Long-Tailed Instance Segmentation", with S = M C. A rarer
    class is punished less by samples of a more frequent one, M_yc = min(1, n_c / n_y)^p, and one
    that is mistaken for the true class is punished more, C_yc = max(1, p_c / p_y)^q, which is a
    constant to the gradient. At p = q = 0 it is cross-entropy. log S is added to the logits, so
    nothing overflows.

    The authors count the labels seen so far; with images drawn as they come the ratios converge to
    those of the training images, which are used here from the first step: a run has no state to
    resume. Under class-balanced sampling the authors' counts become equal and M vanishes, here it
    stays. Their code also holds p_y above 0.01 in C (``eps``), which the paper does not say.

    Args:
        logits: (N, C) or (N, C, ...).
        targets: (N,) or (N, ...) int64 labels.
        class_counts: (C,) training images of each class. One without images takes no part in the
            softmax; public code counts it as 1.
        p: Strength of the mitigation M.
        q: Strength of the compensation C.
        eps: Least p_y in the ratio of C, 0 to 1; at 1 there is no compensation.
        weight: (C,) class weights.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: the number of valid ``samples`` or their ``weights``.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1 (on the CPU; never when compiled).
        ValueError: For counts that are negative, not finite or all 0, an unknown reduction or
            normalisation.

    >>> logits = torch.zeros(1, 2)
    >>> seesaw_loss(logits, torch.tensor([0]), class_counts=[4, 1], p=0.5)  # log(1 + 1/2)
    tensor(0.4055)
    """
    logits = _balanced(
        as_float(logits),
        targets,
        log_counts=_log_counts(class_counts, num_classes=logits.shape[1]),
        p=p,
        q=q,
        eps=eps,
        ignore_index=ignore_index,
    )
    return cross_entropy_loss(
        logits,
        targets,
        weight=weight,
        reduction=reduction,
        normalize=normalize,
        ignore_index=ignore_index,
    )


def _log_counts(class_counts: ClassValues, *, num_classes: int | None = None) -> Tensor:
    """Return log n, float64 (C,), and `MASKED` where n is 0."""
    counts = checked_counts(class_counts, num_classes)
    return torch.where(counts > 0, counts.log(), MASKED)


def _balanced(
    logits: Tensor,
    targets: Tensor,
    *,
    log_counts: Tensor,
    p: float,
    q: float,
    eps: float,
    ignore_index: int,
) -> Tensor:
    """Return logits plus log S of each sample's class, (N, C, ...)."""
    check_labels_fit(logits, targets)
    labels = known_labels(targets, ignore_index=ignore_index)
    check_labels(labels, logits.shape[1])
    classes = over_classes(log_counts, logits)
    own_count = log_counts.to(logits)[labels].unsqueeze(1)
    mitigation = p * (classes - own_count).clamp_max(0)
    # A class without images has share 0 whatever p is.
    log_factor = torch.where(classes > MASKED, mitigation, MASKED)
    # Not under no_grad, which forward derivatives do not heed.
    log_p = torch.where(classes > MASKED, logits.detach(), MASKED).log_softmax(dim=1)
    own_log_p = log_p.gather(1, labels.unsqueeze(1))
    if eps > 0:
        own_log_p = own_log_p.clamp_min(math.log(eps))
    return logits + log_factor + q * (log_p - own_log_p).clamp_min(0)


class Seesaw(SampleMean):
    """Cross-entropy that punishes rarer classes less, and classes mistaken for the true one more.

    Args:
        p: How much less, by the ratio of training images; 0 is no mitigation.
        q: How much more, by the ratio of probabilities; 0 is no compensation.
        eps: Least probability of the true class in that ratio; 0.01 in the authors' code.
        normalize: What the batch mean divides by: the number of samples, or the sum of their class
            weights.
    """

    dense: ClassVar[bool] = True
    aims_at: ClassVar[str] = "balanced accuracy"
    fixed_point: ClassVar[FixedPoint] = "none"
    idle: ClassVar[Idle] = (
        ({"q": 0.0}, ("eps",)),
        ({"weight": None}, ("normalize",)),
    )
    breaks: ClassVar[Mapping[str, str]] = {
        "gradcheck": "its compensation is a constant to the gradient",
        "double_backward": "its compensation is a constant to the gradient",
    }
    equals: ClassVar[Limits] = (({"p": 0.0, "q": 0.0}, "cross_entropy", {}),)

    log_counts: Tensor

    def __init__(
        self,
        class_counts: ClassValues,
        *,
        p: Annotated[float, Ge(0)] = 0.8,
        q: Annotated[float, Ge(0)] = 2.0,
        eps: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
        normalize: Literal["samples", "weights"] = "samples",
    ) -> None:
        super().__init__(normalize=normalize)
        self.p = p
        self.q = q
        self.eps = eps
        self._note_counts(class_counts)
        # Not persistent: they follow from the data set, which is where a run takes them from.
        self.register_buffer("log_counts", _log_counts(class_counts), persistent=False)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch; see `seesaw_loss`."""
        logits = _balanced(
            as_float(logits),
            targets,
            log_counts=self.log_counts,
            p=self.p,
            q=self.q,
            eps=self.eps,
            ignore_index=-100,
        )
        return cross_entropy_loss(logits, targets, weight=self.weight, normalize=self.normalize)
