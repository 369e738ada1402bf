"""Label-distribution-aware margin loss."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from ._adjustment import Adjustment
from ._base import FixedPoint, Idle, Limits, SampleMean
from ._counts import checked_counts
from ._inputs import ClassValues, as_float
from ._reduction import Reduction, SampleNormalizer
from .cross_entropy import adjusted_cross_entropy


def ldam_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    class_counts: ClassValues,
    max_margin: float = 0.5,
    scale: float = 30.0,
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: SampleNormalizer = "samples",
    ignore_index: int = -100,
) -> Tensor:
    """Return the cross-entropy of scale (x - margin_y at the true class y).

    Cao et al. 2019, "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", eq.
    13: margin_c is proportional to n_c^(-1/4), and ``max_margin`` for the rarest class. Made for
    logits that are cosines (``model.head=cosine``), for which the authors' code has scale 30. At
    ``max_margin=0`` it is the cross-entropy of scaled logits. The authors' mean with class weights
    divides by the sum of the weights: ``normalize="weights"``.

    Args:
        logits: (N, C) or (N, C, ...), cosines between -1 and 1.
        targets: (N,) or (N, ...) int64 labels.
        class_counts: (C,) training images of each class. One without images has margin 0; public
            code then makes every margin NaN.
        max_margin: Margin of the rarest class.
        scale: Factor of the logits after the margin.
        weight: (C,) class weights.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: the number of valid ``samples`` or their ``weights``.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1 (on the CPU; never when compiled).
        ValueError: For counts that are negative, not finite or all 0, an unknown reduction or
            normalisation.

    >>> logits = torch.tensor([[0.5, 0.5]])
    >>> ldam_loss(logits, torch.tensor([1]), class_counts=[16, 1], scale=1)  # log(1 + exp(0.5))
    tensor(0.9741)
    """
    margins = _margins(class_counts, num_classes=logits.shape[1], max_margin=max_margin)
    return adjusted_cross_entropy(
        logits,
        targets,
        Adjustment(scale=scale, own=-scale * margins),
        weight=weight,
        reduction=reduction,
        normalize=normalize,
        ignore_index=ignore_index,
    )


def _margins(
    class_counts: ClassValues, *, num_classes: int | None = None, max_margin: float
) -> Tensor:
    """Return the margin of each class, float64 (C,)."""
    counts = checked_counts(class_counts, num_classes)
    rarest = torch.where(counts > 0, counts, torch.inf).min()
    return torch.where(counts > 0, max_margin * (rarest / counts.clamp_min(1e-9)) ** 0.25, 0.0)


class Ldam(SampleMean):
    """Cross-entropy with a margin that is larger for rarer classes; for model.head=cosine.

    Args:
        max_margin: Margin of the rarest class.
        scale: Factor of the logits after the margin.
        normalize: What the batch mean divides by: the number of samples, or the sum of their class
            weights as the authors' code does.
    """

    dense: ClassVar[bool] = True
    for_cosines: ClassVar[bool] = True
    aims_at: ClassVar[str] = "balanced accuracy, by margins"
    fixed_point: ClassVar[FixedPoint] = "none"
    idle: ClassVar[Idle] = (({"weight": None}, ("normalize",)),)
    equals: ClassVar[Limits] = (({"max_margin": 0.0, "scale": 1.0}, "cross_entropy", {}),)

    own: Tensor  # (C,), what the true class's scaled logit is given: minus its margin

    def __init__(
        self,
        class_counts: ClassValues,
        *,
        max_margin: Annotated[float, Ge(0)] = 0.5,
        scale: Annotated[float, Gt(0)] = 30.0,
        normalize: Literal["samples", "weights"] = "samples",
    ) -> None:
        super().__init__(normalize=normalize)
        self.scale = scale
        self._note_counts(class_counts)
        own = -scale * _margins(class_counts, max_margin=max_margin)
        # Not persistent: it follows from the data set, which is where a run takes it from.
        self.register_buffer("own", own, persistent=False)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch; see `ldam_loss`."""
        return adjusted_cross_entropy(
            logits,
            targets,
            Adjustment(scale=self.scale, own=self.own),
            weight=self.weight,
            normalize=self.normalize,
        )

    def predict(self, logits: Tensor) -> Tensor:
        """Return the softmax of the scaled logits, without margins."""
        return (self.scale * as_float(logits)).softmax(dim=1)
