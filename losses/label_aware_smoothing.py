"""Label-aware smoothing."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from ._base import FixedPoint, Idle, Limits, SampleMean
from ._class_smoothing import class_smoothed
from ._counts import checked_counts
from ._inputs import ClassValues
from ._reduction import Reduction, SampleNormalizer

Shape = Literal["concave", "linear", "convex"]


def label_aware_smoothing_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    class_counts: ClassValues,
    smooth_head: float = 0.4,
    smooth_tail: float = 0.1,
    shape: Shape = "concave",
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: SampleNormalizer = "samples",
    ignore_index: int = -100,
) -> Tensor:
    """Return -(1 - s_y) log p_y - s_y / (C - 1) sum_{c != y} log p_c.

    Zhong et al. 2021, "Improving Calibration for Long-Tailed Recognition" (MiSLAS), sec. 3.2: label
    smoothing whose strength s_y goes from ``smooth_tail`` for the rarest class to ``smooth_head``
    for the most frequent one along a quarter of a sine (concave or convex) or a line. The paper
    spreads s_y over the other classes, its code over all. Meant for a second stage, on a frozen
    backbone with class-balanced sampling. Without smoothing it is cross-entropy.

    Args:
        logits: (N, C) or (N, C, ...); minus infinity for a class that a sample cannot have.
        targets: (N,) or (N, ...) int64 labels, or floating class probabilities of the logits'
            shape: a mixture of the losses of their classes, as in the authors' mixup.
        class_counts: (C,) training images of each class. One without images counts as the rarest;
            where all are equal each is smoothed like the most frequent one (authors: NaN).
        smooth_head: Strength for the most frequent class, 0 to 1.
        smooth_tail: Strength for the rarest class, 0 to 1.
        shape: How it goes from one to the other with the count.
        weight: (C,) class weights, which multiply the whole loss of a sample.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: the number of valid ``samples`` or their ``weights``.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1 (on the CPU; never when compiled).
        ValueError: For counts that are negative, not finite or all 0, a strength below 0
            or of 1 and more, targets that do not fit, an unknown shape, reduction or normalisation.

    >>> logits = torch.tensor([[0.0, 2.0]])  # 2.1269 and 0.1269 before smoothing
    >>> label_aware_smoothing_loss(logits, torch.tensor([1]), class_counts=[2, 1], smooth_tail=0.5)
    tensor(1.1269)
    """
    return class_smoothed(
        logits,
        targets,
        strengths=_strengths(
            class_counts,
            num_classes=logits.shape[1],
            head=smooth_head,
            tail=smooth_tail,
            shape=shape,
        ),
        weight=weight,
        reduction=reduction,
        normalize=normalize,
        ignore_index=ignore_index,
    )


def _strengths(
    class_counts: ClassValues,
    *,
    num_classes: int | None = None,
    head: float,
    tail: float,
    shape: Shape,
) -> Tensor:
    """Return the smoothing of each class, float64 (C,)."""
    for strength in (head, tail):
        if not 0 <= strength < 1:
            raise ValueError(f"label smoothing must be 0 or more and below 1, not {strength}")
    counts = checked_counts(class_counts, num_classes)
    low, high = torch.where(counts > 0, counts, torch.inf).min(), counts.max()
    place = torch.where(low < high, ((counts - low) / (high - low)).clamp_min(0), 1.0)
    angle = place * math.pi / 2
    heights = {"concave": angle.sin(), "linear": place, "convex": 1 - angle.cos()}
    if shape not in heights:
        raise ValueError(f"shape must be concave, linear or convex, not {shape!r}")
    return tail + (head - tail) * heights[shape]


class LabelAwareSmoothing(SampleMean):
    """Cross-entropy with label smoothing that is stronger for classes with more training images.

    Args:
        smooth_head: Strength for the most frequent class.
        smooth_tail: Strength for the rarest class.
        shape: How it goes from one to the other with the number of training images.
        normalize: What the batch mean divides by: the number of samples, or the sum of their class
            weights.
    """

    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    aims_at: ClassVar[str] = "calibration, in a second stage on a frozen backbone"
    fixed_point: ClassVar[FixedPoint] = "none"
    idle: ClassVar[Idle] = (
        ({"smooth_head": "smooth_tail"}, ("shape",)),
        ({"weight": None}, ("normalize",)),
    )
    equals: ClassVar[Limits] = (({"smooth_head": 0.0, "smooth_tail": 0.0}, "cross_entropy", {}),)

    strengths: Tensor

    def __init__(
        self,
        class_counts: ClassValues,
        *,
        smooth_head: Annotated[float, Ge(0), Lt(1)] = 0.4,
        smooth_tail: Annotated[float, Ge(0), Lt(1)] = 0.1,
        shape: Literal["concave", "linear", "convex"] = "concave",
        normalize: Literal["samples", "weights"] = "samples",
    ) -> None:
        super().__init__(normalize=normalize)
        self._note_counts(class_counts)
        strengths = _strengths(class_counts, head=smooth_head, tail=smooth_tail, shape=shape)
        # Not persistent: they follow from the data set, which is where a run takes them from.
        self.register_buffer("strengths", strengths, persistent=False)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch; see `label_aware_smoothing_loss`."""
        return class_smoothed(
            logits,
            targets,
            strengths=self.strengths,
            weight=self.weight,
            normalize=self.normalize,
        )
