"""Binary cross-entropy on every output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from ._base import ElementMean, FixedPoint, Limits
from ._counts import over_classes
from ._element_loss import ElementLoss
from ._inputs import ClassValues, SupportsArray, as_tensor, class_vector, listed_values
from ._reduction import Reduction, reduce_values
from ._sigmoid_terms import (
    ElementNormalizer,
    binary_elements,
    element_logits,
    element_normalizer,
    output_weight,
)


def binary_cross_entropy_loss(
    inputs: Tensor,
    targets: Tensor,
    *,
    from_logits: bool = True,
    pos_weight: ClassValues | None = None,
    element_weight: Tensor | SupportsArray | None = None,
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    normalize: ElementNormalizer = "elements",
    ignore_index: int = -100,
) -> Tensor:
    """Return -(t log p + (1 - t) log(1 - p)) of every output, summed or averaged.

    Computed on the signed logit as softplus((1 - 2t) x) for labels, which is exact where
    `torch.nn.functional.binary_cross_entropy_with_logits` cancels: at x = -16 that one returns 0
    for a negative instead of 1.1e-7. For labels every class is a binary problem against all others.

    Args:
        inputs: Logits (N, C), (N, C, ...), or (N, 1) for two classes with class 1 the positive one;
            probabilities with ``from_logits=False``.
        targets: (N,) or (N, ...) int64 labels; or targets of the inputs' shape with values 0 to 1,
            one for each output (multi-label); or (N, 2, ...) class probabilities for one output.
        from_logits: Whether inputs are logits. A probability of 0 or 1 counts as a logit of +-100.
        pos_weight: (C,) factor of the positives of each output.
        element_weight: Factor of each element, of the inputs' shape.
        weight: (C,) class weights, two for a single output: the weight of a sample's class
            multiplies all of its outputs.
        reduction: ``none`` gives the inputs' shape; ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: all ``elements``, samples in the ``batch``, or
            ``positives``, at least 1.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label out of range (on the CPU; never when compiled).
        ValueError: For shapes that do not fit, an unknown reduction or normalisation, and a target
            or probability outside 0 to 1 (on the CPU; never when compiled).

    >>> import torch
    >>> binary_cross_entropy_loss(torch.tensor([0.5, 0.75]), torch.tensor([1.0, 0.0]),
    ...                           from_logits=False)
    tensor(1.0397)
    """
    if normalize not in ("elements", "batch", "positives"):
        raise ValueError(f"normalize must be elements, batch or positives, not {normalize!r}")
    logits = element_logits(inputs, from_logits=from_logits)
    if pos_weight is None and element_weight is None:
        loss = ElementLoss(
            targets,
            gamma=0.0,
            alpha=None,
            weight=output_weight(weight, logits),
            reduction=reduction,
            normalize=normalize,
            ignore_index=ignore_index,
        )
        return loss.of(logits)
    batch = binary_elements(logits, targets, gamma=0.0, weight=weight, ignore_index=ignore_index)
    values = batch.values
    if pos_weight is not None:
        num_outputs = 1 if logits.ndim == 1 else logits.shape[1]
        extra = class_vector(pos_weight, num_outputs, name="pos_weight", of="output")
        extra = over_classes(extra, logits) - 1
        # Only of positives: 0 times the loss of minus infinity would be NaN.
        asked = logits.masked_fill((batch.positive == 0) | ~batch.valid, 0)
        values = values + extra * batch.positive * F.softplus(-asked, threshold=40)
    values = values * batch.factor
    if element_weight is not None:
        extra = as_tensor(element_weight, name="element_weight").to(values)
        if extra.shape != logits.shape:  # another one would broadcast, to more elements even
            raise ValueError(
                f"element_weight must be {tuple(logits.shape)} as the inputs, not "
                f"{tuple(extra.shape)}"
            )
        values = values * extra
    normalizer = element_normalizer(batch, normalize=normalize)
    return reduce_values(values, reduction=reduction, normalizer=normalizer)


class BinaryCrossEntropy(ElementMean):
    """Binary cross-entropy on one sigmoid per class: each class against the rest.

    Args:
        pos_weight: Factor of the positives of each output: a list in label order, or in a config
            by class name, as in {cat: 1, dog: 3}; two classes have one output, whose positive is
            the second class, and one number.
        normalize: What the batch sum is divided by: samples times outputs, samples, or positives.
    """

    activation: ClassVar[Literal["softmax", "sigmoid"]] = "sigmoid"
    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    aims_at: ClassVar[str] = "accuracy where classes are as frequent as in training"
    fixed_point: ClassVar[FixedPoint] = "natural"
    breaks: ClassVar[Mapping[str, str]] = {
        "reweighted_fixed_point at pos_weight": "gives positives a factor",
    }
    equals: ClassVar[Limits] = (({}, "sigmoid_focal", {"gamma": 0.0}),)

    pos_weight: Tensor | None

    def __init__(
        self,
        num_classes: int,
        *,
        pos_weight: tuple[float, ...] | dict[str, float] | None = None,
        normalize: Literal["elements", "batch", "positives"] = "elements",
    ) -> None:
        super().__init__(normalize=normalize)
        self._num_classes = num_classes
        factors = None
        if pos_weight is not None:
            num_outputs = 1 if num_classes == 2 else num_classes
            factors = listed_values(pos_weight, num_outputs, name="pos_weight", of="output")
        # Not persistent: it is a key of the configuration, which is where a run takes it from.
        self.register_buffer("pos_weight", factors, persistent=False)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch; see `binary_cross_entropy_loss`."""
        return binary_cross_entropy_loss(
            logits,
            targets,
            pos_weight=self.pos_weight,
            weight=self.weight,
            normalize=self.normalize,
        )
