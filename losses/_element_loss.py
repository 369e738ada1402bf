"""Focal losses on one sigmoid per output, gamma 0 for binary cross-entropy."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._device import is_on_device
from ._device_sigmoid import device_loss
from ._fused import GradientInForward, Made, can_fuse
from ._fused_sigmoid import HardTargets, sigmoid_with_gradient
from ._inputs import all_count, check_labels, class_values
from ._reduction import Reduction, as_divisor, reduce_values
from ._sigmoid_terms import (
    ElementNormalizer,
    Elements,
    SoftForm,
    binary_elements,
    element_normalizer,
)


class ElementLoss(NamedTuple):
    """A loss of labels, or of a target for each output, but for its logits."""

    targets: Tensor  # as in `sigmoid_focal_loss`
    gamma: float
    alpha: float | None
    weight: Tensor | None  # (C,), two for a single output
    reduction: Reduction  # "none" gives the logits' shape; "mean" and "sum" a scalar
    normalize: ElementNormalizer
    ignore_index: int
    soft_form: SoftForm = "likelihood"

    def of(self, logits: Tensor) -> Tensor:
        """Return the loss of logits (N,), (N, C) or (N, C, ...).

        Here it is chosen how: composed, or with a gradient that is made by a kernel of a device or,
        for many logits and targets 0 or 1, part by part.

        Raises:
            IndexError: For a label out of range (on the CPU; never when compiled).
            ValueError: For shapes that do not fit, an unknown reduction, and a target outside 0 to
                1 (likewise).
        """
        if is_on_device(logits):
            found = device_loss(logits, self)
            return self.composed(logits) if found is None else found
        made = None
        if self.reduction in ("mean", "sum") and can_fuse(
            "sigmoid", logits, self.targets, self.weight
        ):
            made = self._in_parts(logits.detach())
        if made is None:
            return self.composed(logits)
        return GradientInForward.apply(logits, made, self.composed)

    def composed(self, logits: Tensor) -> Tensor:
        """Return the same, composed of PyTorch's functions: the definition of the loss."""
        batch = binary_elements(
            logits,
            self.targets,
            gamma=self.gamma,
            weight=self.weight,
            ignore_index=self.ignore_index,
            soft_form=self.soft_form,
        )
        values = batch.values * self._factor(batch)
        normalizer = element_normalizer(batch, normalize=self.normalize)
        return reduce_values(values, reduction=self.reduction, normalizer=normalizer)

    def are_labels(self, logits: Tensor) -> bool:
        """Tell whether targets are class labels, by their shape and type."""
        is_alike = self.targets.shape == logits.shape[:1] + logits.shape[2:]
        return is_alike and logits.ndim > 1 and not self.targets.is_floating_point()

    def _factor(self, batch: Elements) -> Tensor:
        """Return the factor of each element: the sample's, times alpha or 1 - alpha."""
        alpha, positive = self.alpha, batch.positive
        if alpha is None:
            return batch.factor
        if positive.dtype == torch.bool:
            return torch.where(positive, alpha * batch.factor, (1 - alpha) * batch.factor)
        return (alpha * positive + (1 - alpha) * (1 - positive)) * batch.factor

    def _in_parts(self, logits: Tensor) -> Made | None:
        """Return the loss of many logits, in little memory; None for targets not all 0 or 1."""
        targets, weight, normalize = self.targets, self.weight, self.normalize
        num_outputs = 1 if logits.ndim == 1 else logits.shape[1]
        num_samples: Tensor | int = logits.numel() // num_outputs
        if targets.shape == logits.shape and weight is None:
            hard = HardTargets(targets.reshape(-1, 1, 1), are_labels=False, factor=None)
        elif self.are_labels(logits):
            is_counted = all_count(targets, ignore_index=self.ignore_index)
            valid = None if is_counted else targets != self.ignore_index
            hard = _hard_labels(
                targets, valid, num_outputs=num_outputs, weight=weight, dtype=logits.dtype
            )
            num_samples = num_samples if valid is None else torch.count_nonzero(valid)
        else:
            return None
        divisor: Tensor | int = 1
        if self.reduction == "mean" and normalize == "positives" and not hard.are_labels:
            divisor = as_divisor(hard.values.sum(dtype=torch.float64))
        elif self.reduction == "mean":  # a label is the positive of one output among many
            divisor = as_divisor(num_samples * (num_outputs if normalize == "elements" else 1))
        return sigmoid_with_gradient(
            logits, hard, gamma=self.gamma, alpha=self.alpha, divisor=divisor
        )


def _hard_labels(
    labels: Tensor,
    valid: Tensor | None,
    *,
    num_outputs: int,
    weight: Tensor | None,
    dtype: torch.dtype,
) -> HardTargets:
    """Return labels (N, ...) as the fused path wants them; those not `valid` become 0."""
    N = len(labels)
    labels = labels.long() if valid is None else torch.where(valid, labels, 0).long()
    check_labels(labels, max(num_outputs, 2))
    factor = None if valid is None else valid.to(dtype)
    if weight is not None:
        of_labels = class_values(weight, labels, ignore_index=None)
        factor = of_labels if factor is None else factor * of_labels
    return HardTargets(
        labels.reshape(N, 1, -1),
        are_labels=num_outputs > 1,  # the label of a single output is its target
        factor=None if factor is None else factor.reshape(N, 1, -1),
        ignored=None if valid is None else ~valid.reshape(N, 1, -1),
    )
