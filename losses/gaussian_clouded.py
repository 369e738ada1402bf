"""Gaussian clouded logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from ._base import FixedPoint, Idle, Limits, SampleMean
from ._counts import checked_counts, over_classes
from ._inputs import ClassValues, as_float
from ._reduction import Reduction, SampleNormalizer
from .cross_entropy import cross_entropy_loss


def gaussian_clouded_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    class_counts: ClassValues,
    noise: float = 0.5,
    scale: float = 30.0,
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: SampleNormalizer = "samples",
    ignore_index: int = -100,
) -> Tensor:
    """Return the cross-entropy of scale (x_c - noise cloud_c |e|), e drawn for every logit.

    GCL of Li et al. 2022, "Long-Tailed Visual Recognition via Gaussian Clouded Logit Adjustment":
    cloud_c is log n_max - log n_c, over its largest value, so 0 for the most frequent class and 1
    for the rarest, whose logits have to be larger by a random amount. e is normal with deviation
    1/3, held within -1 and 1, and comes from torch's global generator, as dropout's draws do. Made
    for logits that are cosines (``model.head=cosine``); noise and scale are those of the authors'
    scripts, which leave their code's additional fixed margin at 0. At ``noise=0`` it is the
    cross-entropy of scaled logits.

    Args:
        logits: (N, C) or (N, C, ...), cosines between -1 and 1.
        targets: (N,) or (N, ...) int64 labels, or floating class probabilities of the logits'
            shape.
        class_counts: (C,) training images of each class. One without images counts as the rarest;
            where all are equal there is no cloud (authors: NaN for both).
        noise: Size of the cloud of the rarest class.
        scale: Factor of the logits after the noise.
        weight: (C,) class weights.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: the number of valid ``samples`` or their ``weights``.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1.
        ValueError: For counts that are negative, not finite or all 0, an unknown reduction or
            normalisation.

    >>> logits = torch.tensor([[0.5, 0.5]])
    >>> gaussian_clouded_loss(logits, torch.tensor([1]), class_counts=[9, 1], noise=0)  # log 2
    tensor(0.6931)
    """
    clouds = _clouds(class_counts, num_classes=logits.shape[1])
    return cross_entropy_loss(
        scale * _clouded(as_float(logits), clouds=clouds, noise=noise),
        targets,
        weight=weight,
        reduction=reduction,
        normalize=normalize,
        ignore_index=ignore_index,
    )


def _clouds(class_counts: ClassValues, *, num_classes: int | None = None) -> Tensor:
    """Return the size of each class's cloud, float64 (C,), 0 to 1."""
    counts = checked_counts(class_counts, num_classes)
    present = counts > 0
    sizes = counts.max().log() - torch.where(present, counts, 1).log()
    largest = torch.where(present, sizes, 0).max()
    clouds = torch.where(present, sizes / largest, 1.0)
    return torch.where(largest > 0, clouds, 0.0)


def _clouded(logits: Tensor, *, clouds: Tensor, noise: float) -> Tensor:
    """Return logits (N, C, ...) less what is drawn for each."""
    if noise == 0:
        return logits
    # Not randn_like, whose numbers go to other logits where they lie transposed in memory.
    normal = torch.randn(logits.shape, dtype=logits.dtype, device=logits.device)
    drawn = (normal / 3).abs().clamp_max(1)
    return logits - noise * over_classes(clouds, logits) * drawn


class GaussianClouded(SampleMean):
    """Cross-entropy of logits that noise makes smaller, more so for rarer classes; for cosines.

    Args:
        noise: Size of the noise of the rarest class; 0 is cross-entropy of scaled logits.
        scale: Factor of the logits after the noise.
        normalize: What the batch mean divides by: the number of samples, or the sum of their class
            weights as the authors' code does.
    """

    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    for_cosines: ClassVar[bool] = True
    draws: ClassVar[bool] = True
    aims_at: ClassVar[str] = "balanced accuracy, by margins drawn at random"
    fixed_point: ClassVar[FixedPoint] = "none"
    idle: ClassVar[Idle] = (({"weight": None}, ("normalize",)),)
    breaks: ClassVar[Mapping[str, str]] = {
        "large_batch": "every sample has a draw of its own",
        "dense_logits": "draws for every logit, in their order",
        "class_permutation": "draws for every logit, in their order",
        "ignoring_is_dropping": "draws for every logit, in their order",
        "sums_over_parts": "draws for every logit, in their order",
        "function_transforms": "draws, for which torch.func.vmap wants to be told how",
        "compiled_by_inductor": "inductor draws from a generator of its own",
    }
    equals: ClassVar[Limits] = (({"noise": 0.0, "scale": 1.0}, "cross_entropy", {}),)

    clouds: Tensor

    def __init__(
        self,
        class_counts: ClassValues,
        *,
        noise: Annotated[float, Ge(0)] = 0.5,
        scale: Annotated[float, Gt(0)] = 30.0,
        normalize: Literal["samples", "weights"] = "samples",
    ) -> None:
        super().__init__(normalize=normalize)
        self.noise = noise
        self.scale = scale
        self._note_counts(class_counts)
        # Not persistent: they follow from the data set, which is where a run takes them from.
        self.register_buffer("clouds", _clouds(class_counts), persistent=False)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch; see `gaussian_clouded_loss`."""
        logits = self.scale * _clouded(as_float(logits), clouds=self.clouds, noise=self.noise)
        return cross_entropy_loss(logits, targets, weight=self.weight, normalize=self.normalize)

    def predict(self, logits: Tensor) -> Tensor:
        """Return the softmax of the scaled logits, without noise."""
        return (self.scale * as_float(logits)).softmax(dim=1)
