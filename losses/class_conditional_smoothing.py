"""Class-conditional label smoothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from ._base import FixedPoint, Idle, Limits, SampleMean
from ._class_smoothing import class_smoothed
from ._counts import checked_counts
from ._inputs import ClassValues
from ._reduction import Reduction, SampleNormalizer


def class_conditional_smoothing_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    class_counts: ClassValues,
    smoothing: float = 0.1,
    power: float = 1.0,
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: SampleNormalizer = "samples",
    ignore_index: int = -100,
) -> Tensor:
    """Return -(1 - s_y) log p_y - s_y / C sum_c log p_c with s_y = s (n_min / n_y)^power.

    Shwartz-Ziv et al. 2023, "Simplifying Neural Network Training Under Class Imbalance", smooth the
    labels of rare classes more than those of frequent ones, which keeps a network from growing sure
    of the few images of a rare class. They do so as one of the settings that they tune; the power
    of the count, which goes from the same smoothing for all (0) to none but for the rarest (large),
    is ours. `label_aware_smoothing` does the opposite. At power 0 it is cross-entropy with
    ``label_smoothing`` s.

    Args:
        logits: (N, C) or (N, C, ...); minus infinity for a class that a sample cannot have.
        targets: (N,) or (N, ...) int64 labels, or floating class probabilities of the logits'
            shape: a mixture of the losses of their classes.
        class_counts: (C,) training images of each class. One without images counts as the rarest.
        smoothing: Strength s for the rarest class, 0 to 1.
        power: How fast it falls with the count, 0 or more.
        weight: (C,) class weights, which multiply the whole loss of a sample.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: the number of valid ``samples`` or their ``weights``.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1 (on the CPU; never when compiled).
        ValueError: For counts that are negative, not finite or all 0, a strength below 0
            or of 1 and more, a negative power, targets that do not fit, an unknown reduction or
            normalisation.

    >>> logits = torch.tensor([[0.0, 2.0]])  # 2.1269 and 0.1269 before smoothing
    >>> class_conditional_smoothing_loss(
    ...     logits, torch.tensor([1]), class_counts=[2, 1], smoothing=0.5
    ... )
    tensor(0.6269)
    """
    strengths = _strengths(
        class_counts, num_classes=logits.shape[1], smoothing=smoothing, power=power
    )
    return class_smoothed(
        logits,
        targets,
        strengths=strengths,
        weight=weight,
        reduction=reduction,
        normalize=normalize,
        ignore_index=ignore_index,
        spread="all",
    )


def _strengths(
    class_counts: ClassValues, *, num_classes: int | None = None, smoothing: float, power: float
) -> Tensor:
    """Return the smoothing of each class, float64 (C,)."""
    if not 0 <= smoothing < 1:
        raise ValueError(f"label smoothing must be 0 or more and below 1, not {smoothing}")
    if not power >= 0:
        raise ValueError(f"power must be 0 or more, not {power}")
    counts = checked_counts(class_counts, num_classes)
    rarest = torch.where(counts > 0, counts, torch.inf).min()
    return smoothing * torch.where(counts > 0, rarest / counts, 1.0) ** power


class ClassConditionalSmoothing(SampleMean):
    """Cross-entropy with label smoothing that is stronger for classes with fewer training images.

    Args:
        smoothing: Strength for the rarest class.
        power: How fast it falls with the number of training images: 0 smooths all classes alike, 1
            in inverse proportion.
        normalize: What the batch mean divides by: the number of samples, or the sum of their class
            weights.
    """

    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    aims_at: ClassVar[str] = "the tail, against being too sure of few images"
    fixed_point: ClassVar[FixedPoint] = "natural"
    idle: ClassVar[Idle] = (
        ({"smoothing": 0.0}, ("power",)),
        ({"weight": None}, ("normalize",)),
    )
    equals: ClassVar[Limits] = (
        ({"smoothing": 0.0}, "cross_entropy", {}),
        ({"smoothing": 0.1, "power": 0.0}, "cross_entropy", {"label_smoothing": 0.1}),
    )

    breaks: ClassVar[Mapping[str, str]] = {
        "reweighted_fixed_point": "rare classes give more away than they get, by their weight",
    }

    strengths: Tensor

    def __init__(
        self,
        class_counts: ClassValues,
        *,
        smoothing: Annotated[float, Ge(0), Lt(1)] = 0.1,
        power: Annotated[float, Ge(0)] = 1.0,
        normalize: Literal["samples", "weights"] = "samples",
    ) -> None:
        super().__init__(normalize=normalize)
        self._note_counts(class_counts)
        strengths = _strengths(class_counts, smoothing=smoothing, power=power)
        # Not persistent: they follow from the data set, which is where a run takes them from.
        self.register_buffer("strengths", strengths, persistent=False)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch; see `class_conditional_smoothing_loss`."""
        return class_smoothed(
            logits,
            targets,
            strengths=self.strengths,
            weight=self.weight,
            normalize=self.normalize,
            spread="all",
        )
