"""Softmax equalization loss."""

from __future__ import annotations

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


def equalization_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    class_counts: ClassValues,
    tail_share: float = 0.5,
    chance: float = 1.0,
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: SampleNormalizer = "samples",
    ignore_index: int = -100,
) -> Tensor:
    """Return -log(exp(x_y) / sum_c w_c exp(x_c)) with w_c = 1 - beta T(f_c) (1 - t_c).

    The softmax equalization loss of Tan et al. 2020, "Equalization Loss for Long-Tailed Object
    Recognition": samples of other classes do not push the logits of tail classes down. T is 1 for
    classes with fewer than ``tail_share`` times the mean number of training images: the paper's
    lambda, a share f_c of all images, is tail_share / C, so that one value serves 10 classes and
    1000. beta is 1 with probability ``chance`` (gamma in the paper), drawn for every sample and
    class from torch's global generator, as dropout draws; at chance 1, the default here, nothing
    is drawn. At chance 0, or without a class that rare, it is cross-entropy. Public code
    exponentiates the logits as they are, which overflows in float32 from 89 on.

    Args:
        logits: (N, C) or (N, C, ...).
        targets: (N,) or (N, ...) int64 labels.
        class_counts: (C,) training images of each class. One without images takes no part in the
            softmax, whatever chance is.
        tail_share: Share of the mean count below which a class is in the tail.
        chance: Probability that a sample spares a tail class, 0 to 1.
        weight: (C,) class weights.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: the number of valid ``samples`` or their ``weights``.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1 (on the CPU; never when compiled).
        ValueError: For counts that are negative, not finite or all 0, chance outside 0 to 1, an
            unknown reduction or normalisation.

    >>> logits, counts = torch.zeros(1, 3), [10, 10, 1]  # the third class is spared: log 2
    >>> equalization_loss(logits, torch.tensor([0]), class_counts=counts)
    tensor(0.6931)
    """
    logits = _spared(
        as_float(logits),
        targets,
        frequency=_frequency(class_counts, num_classes=logits.shape[1]),
        tail_share=tail_share,
        chance=chance,
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


def _frequency(class_counts: ClassValues, *, num_classes: int | None = None) -> Tensor:
    """Return each count over the mean count of classes with images, float64 (C,)."""
    counts = checked_counts(class_counts, num_classes)
    return counts / (counts.sum() / torch.count_nonzero(counts))


def _spared(
    logits: Tensor,
    targets: Tensor,
    *,
    frequency: Tensor,
    tail_share: float,
    chance: float,
    ignore_index: int,
) -> Tensor:
    """Return logits (N, C, ...), masked where a class takes no part in a sample's softmax."""
    if not 0 <= chance <= 1:
        raise ValueError(f"chance must lie in 0 to 1, not {chance}")
    check_labels_fit(logits, targets)
    labels = known_labels(targets, ignore_index=ignore_index)
    check_labels(labels, logits.shape[1])
    spared = over_classes(frequency < tail_share, logits).bool().expand_as(logits)
    if chance < 1:
        spared = spared & (torch.rand(logits.shape, device=logits.device) < chance)
    spared = spared.scatter(1, labels.unsqueeze(1), value=False)
    absent = over_classes(frequency == 0, logits).bool()
    return logits + MASKED * (spared | absent)


class Equalization(SampleMean):
    """Cross-entropy in which samples of other classes do not push rare classes down.

    Args:
        tail_share: Share of the mean number of training images below which a class is rare.
        chance: Probability that a sample spares a rare class; 0 is cross-entropy.
        normalize: What the batch mean divides by: the number of samples, or the sum of their class
            weights.
    """

    dense: ClassVar[bool] = True
    draws: ClassVar[bool] = True
    aims_at: ClassVar[str] = "balanced accuracy"
    fixed_point: ClassVar[FixedPoint] = "none"
    idle: ClassVar[Idle] = (
        ({"chance": 0.0}, ("tail_share",)),
        ({"tail_share": 0.0}, ("chance",)),
        ({"weight": None}, ("normalize",)),
    )
    breaks: ClassVar[Mapping[str, str]] = {
        "dense_logits at chance": "below 1 it draws for every logit, in their order",
        "class_permutation at chance": "below 1 it draws for every logit, in their order",
        "ignoring_is_dropping at chance": "below 1 it draws for every logit, in their order",
        "large_batch at chance": "below 1 it draws for every logit, in their order",
        "sums_over_parts at chance": "below 1 it draws for every logit, in their order",
    }
    equals: ClassVar[Limits] = (
        ({"chance": 0.0}, "cross_entropy", {}),
        ({"tail_share": 0.0}, "cross_entropy", {}),
    )

    frequency: Tensor

    def __init__(
        self,
        class_counts: ClassValues,
        *,
        tail_share: Annotated[float, Ge(0)] = 0.5,
        chance: Annotated[float, Interval(ge=0, le=1)] = 1.0,
        normalize: Literal["samples", "weights"] = "samples",
    ) -> None:
        super().__init__(normalize=normalize)
        self.tail_share = tail_share
        self.chance = chance
        self._note_counts(class_counts)
        # Not persistent: they follow from the data set, which is where a run takes them from.
        self.register_buffer("frequency", _frequency(class_counts), persistent=False)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch; see `equalization_loss`."""
        logits = _spared(
            as_float(logits),
            targets,
            frequency=self.frequency,
            tail_share=self.tail_share,
            chance=self.chance,
            ignore_index=-100,
        )
        return cross_entropy_loss(logits, targets, weight=self.weight, normalize=self.normalize)
