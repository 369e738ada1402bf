"""Dice loss, alone or mixed with cross-entropy or focal loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Interval
from torch import Tensor

from ._base import FactsAt, FixedPoint, Idle, Limits, LogitsLoss
from ._fused_overlap import Index
from ._inputs import ClassValues
from ._overlap import Regions, mixture, overlap_loss
from ._reduction import Reduction
from .softmax_focal import softmax_focal_loss


def dice_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    smooth: float = 1.0,
    squared: bool = False,
    over: Regions = "batch",
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
) -> Tensor:
    """Return 1 - (2 sum p t + smooth) / (sum p + sum t + smooth), meant over classes.

    The soft Dice loss, with p = softmax(logits); with ``squared`` the sums below the line are of
    p^2 and t^2 (Milletari et al. 2016, "V-Net", sec. 3). A class that the targets of a region do
    not hold is left out of the mean there. kornia 0.9.0 does so, too, and means over the classes of
    an image first, then over images; its 0.8.3 counts such a class as 1. Sums are in float64: monai
    and segmentation_models_pytorch overflow in float16 at 512 x 512 pixels.

    Soft targets are for ``squared``, which is smallest, 0, at p = t. Otherwise one-hot predictions
    of each target's largest class cost less than p = t, and it is smallest near them.

    Args:
        logits: (N, C) or (N, C, ...).
        targets: (N,) or (N, ...) int64 labels, or floating class probabilities of the logits'
            shape.
        smooth: Added above and below the line.
        squared: Whether p and t are squared below the line.
        over: One Dice value a class over the whole ``batch``, or over each ``image``.
        weight: (C,) class weights, which multiply a class's value.
        reduction: ``none`` gives (1, C) or (N, C); ``mean``, over regions and classes that are
            there, and ``sum`` a scalar.
        ignore_index: The label of pixels that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1 (on the CPU; never when compiled).
        ValueError: For targets that do not fit, an unknown region or reduction.

    >>> import torch
    >>> logits = torch.zeros(2, 2)  # 1 - (2 * 0.5 + 1) / (1 + 1 + 1) for either class
    >>> dice_loss(logits, torch.tensor([0, 1]))
    tensor(0.3333)
    """
    return overlap_loss(
        logits,
        targets,
        _index(smooth=smooth, squared=squared),
        over=over,
        weight=weight,
        reduction=reduction,
        ignore_index=ignore_index,
    )


def _index(*, smooth: float, squared: bool) -> Index:
    return Index(above=2, both=0, predicted=1, true=1, smooth=smooth, squared=squared)


class Dice(LogitsLoss):
    """Dice loss on a softmax: one minus the overlap of predicted and true samples, class by class.

    Args:
        ratio: Share of the Dice loss; the rest is cross-entropy, or focal loss where gamma > 0.
        gamma: Gamma of the focal loss.
        smooth: Added above and below the line.
        squared: Whether probabilities and targets are squared below the line.
        over: One value a class over the whole batch, or over each image.
    """

    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    is_mean_over_samples: ClassVar[bool] = False
    aims_at: ClassVar[str] = "overlap (F1) of every class"
    fixed_point: ClassVar[FixedPoint] = "none"
    facts_at: ClassVar[FactsAt] = (({"ratio": 0.0}, {"is_mean_over_samples": True}),)
    idle: ClassVar[Idle] = (
        ({"ratio": 0.0}, ("smooth", "squared", "over")),
        ({"ratio": 1.0}, ("gamma",)),
    )
    breaks: ClassVar[Mapping[str, str]] = {
        "dense_logits at over": "each image is a region, however many pixels it has",
        "sums_over_parts at over": "by image it is a mean over the images with labels",
        "large_batch": "smooth weighs less, the more samples there are",
    }
    equals: ClassVar[Limits] = (
        ({"ratio": 0.0}, "cross_entropy", {}),
        ({"ratio": 0.0, "gamma": 2.0}, "softmax_focal", {"gamma": 2.0}),
    )

    def __init__(
        self,
        *,
        ratio: Annotated[float, Interval(ge=0, le=1)] = 0.5,
        gamma: Annotated[float, Ge(0)] = 0.0,
        smooth: Annotated[float, Ge(0)] = 1.0,
        squared: bool = False,
        over: Literal["batch", "image"] = "batch",
    ) -> None:
        super().__init__()
        self.ratio = ratio
        self.gamma = gamma
        self.smooth = smooth
        self.squared = squared
        self.over: Regions = over

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return ratio times the Dice loss of a batch and the rest of its focal loss."""
        return mixture(
            logits,
            targets,
            _index(smooth=self.smooth, squared=self.squared),
            ratio=self.ratio,
            over=self.over,
            weight=self.weight,
            samples=partial(
                softmax_focal_loss, targets=targets, gamma=self.gamma, weight=self.weight
            ),
            is_cross_entropy=self.gamma == 0,
        )
