"""Tversky loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Interval
from torch import Tensor

from ._base import FactsAt, FixedPoint, Idle, Limits, LogitsLoss
from ._fused_overlap import Index
from ._inputs import ClassValues
from ._overlap import Regions, mixture, overlap_loss
from ._reduction import Reduction
from .softmax_focal import softmax_focal_loss


def tversky_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smooth: float = 1.0,
    over: Regions = "batch",
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
) -> Tensor:
    """Return 1 - (TP + smooth) / (TP + alpha FP + beta FN + smooth), meant over classes.

    Salehi et al. 2017, "Tversky loss function for image segmentation using 3D fully convolutional
    deep networks", eq. 4, with TP = sum p t, FP = sum p (1 - t), FN = sum (1 - p) t and p =
    softmax(logits). beta above alpha asks for recall. At alpha = beta = 1/2 it is the Dice loss at
    twice the smoothing. A class that the targets of a region do not hold is left out of the mean.

    With soft targets it is not smallest at p = t: one-hot predictions of each target's largest
    class cost less, and it is smallest near them.

    Args:
        logits: (N, C) or (N, C, ...).
        targets: (N,) or (N, ...) int64 labels, or floating class probabilities of the logits'
            shape.
        alpha: Weight of false positives.
        beta: Weight of false negatives.
        smooth: Added above and below the line.
        over: One value a class over the whole ``batch``, or over each ``image``.
        weight: (C,) class weights, which multiply a class's value.
        reduction: ``none`` gives (1, C) or (N, C); ``mean``, over regions and classes that are
            there, and ``sum`` a scalar.
        ignore_index: The label of pixels that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1 (on the CPU; never when compiled).
        ValueError: For targets that do not fit, an unknown region or reduction.
    """
    return overlap_loss(
        logits,
        targets,
        _index(alpha=alpha, beta=beta, smooth=smooth),
        over=over,
        weight=weight,
        reduction=reduction,
        ignore_index=ignore_index,
    )


def _index(*, alpha: float, beta: float, smooth: float) -> Index:
    """Return that with TP + alpha (sum p - TP) + beta (sum t - TP) + smooth below the line."""
    return Index(above=1, both=1 - alpha - beta, predicted=alpha, true=beta, smooth=smooth)


class Tversky(LogitsLoss):
    """Dice loss whose false positives and false negatives have weights of their own.

    Args:
        alpha: Weight of false positives.
        beta: Weight of false negatives; above alpha it asks for recall.
        ratio: Share of the Tversky loss; the rest is cross-entropy, or focal loss where gamma > 0.
        gamma: Gamma of the focal loss.
        smooth: Added above and below the line.
        over: One value a class over the whole batch, or over each image.
    """

    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    is_mean_over_samples: ClassVar[bool] = False
    aims_at: ClassVar[str] = "overlap of every class, recall before precision"
    fixed_point: ClassVar[FixedPoint] = "none"
    facts_at: ClassVar[FactsAt] = (({"ratio": 0.0}, {"is_mean_over_samples": True}),)
    idle: ClassVar[Idle] = (
        ({"ratio": 0.0}, ("alpha", "beta", "smooth", "over")),
        ({"ratio": 1.0}, ("gamma",)),
        ({"over": "image", "targets": "labels", "dense": False}, ("alpha",)),
    )
    breaks: ClassVar[Mapping[str, str]] = {
        "dense_logits at over": "each image is a region, however many pixels it has",
        "sums_over_parts at over": "by image it is a mean over the images with labels",
        "large_batch": "smooth weighs less, the more samples there are",
        "worst_mistakes": "at most 1 for each class, with the slope of a softmax that saturates",
    }
    equals: ClassVar[Limits] = (
        ({"alpha": 0.5, "beta": 0.5, "smooth": 1.0}, "dice", {"ratio": 1.0, "smooth": 2.0}),
        ({"ratio": 0.0}, "cross_entropy", {}),
    )

    def __init__(
        self,
        *,
        alpha: Annotated[float, Ge(0)] = 0.3,
        beta: Annotated[float, Gt(0)] = 0.7,
        ratio: Annotated[float, Interval(ge=0, le=1)] = 1.0,
        gamma: Annotated[float, Ge(0)] = 0.0,
        smooth: Annotated[float, Ge(0)] = 1.0,
        over: Literal["batch", "image"] = "batch",
    ) -> None:
        super().__init__()
        self.ratio = ratio
        self.gamma = gamma
        self.alpha = alpha
        self.beta = beta
        self.smooth = smooth
        self.over: Regions = over

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return ratio times the Tversky loss of a batch and the rest of its focal loss."""
        return mixture(
            logits,
            targets,
            _index(alpha=self.alpha, beta=self.beta, smooth=self.smooth),
            ratio=self.ratio,
            over=self.over,
            weight=self.weight,
            samples=partial(
                softmax_focal_loss, targets=targets, gamma=self.gamma, weight=self.weight
            ),
            is_cross_entropy=self.gamma == 0,
        )
