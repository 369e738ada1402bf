"""One binary problem for each output: its loss, and what of it counts."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ._inputs import (
    ClassValues,
    all_count,
    as_float,
    as_labels,
    check_labels,
    check_probabilities,
    class_values,
    class_weight,
    without_ignored,
)
from ._modulator import distance_modulator, focal_modulator

ElementNormalizer = Literal["elements", "batch", "positives"]
SoftForm = Literal["likelihood", "distance"]

CERTAIN = 100.0  # logit of a probability of 1, as torch's own loss on probabilities has it


class Elements(NamedTuple):
    """Elements of a batch, of the logits' shape or one that broadcasts to it."""

    values: Tensor  # how wrong^gamma (-log p_t)
    positive: Tensor  # whether each element is a positive, or how much of one, 0 to 1
    factor: Tensor  # weight of the sample, 0 where it is ignored
    valid: Tensor  # bool: whether the sample counts


def element_logits(inputs: Tensor, *, from_logits: bool) -> Tensor:
    """Return logits as they are, or those of probabilities, in the precision of losses.

    A probability of 0 or 1 has the logit -100 or 100, with a finite slope that points the right
    way; so has one below e^-100 or the smallest normal number, whose own slope would overflow.

    Raises:
        ValueError: For a probability outside 0 to 1 (on the CPU; never when compiled).
    """
    inputs = as_float(inputs)
    if from_logits:
        return inputs
    check_probabilities(inputs)
    smallest = max(torch.finfo(inputs.dtype).tiny, math.exp(-CERTAIN))
    is_certain = (inputs < smallest) | (inputs == 1)
    p = torch.where(is_certain, 0.5, inputs)
    return torch.where(is_certain, CERTAIN * (2 * inputs - 1), p.log() - torch.log1p(-p))


def binary_elements(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float,
    weight: ClassValues | None,
    ignore_index: int,
    soft_form: SoftForm = "likelihood",
) -> Elements:
    """Return (1 - p_t)^gamma (-log p_t) of every output; shapes as in `sigmoid_focal_loss`.

    Raises:
        IndexError: For a label out of range (on the CPU; never when compiled).
        ValueError: For shapes that do not fit, or a target outside 0 to 1 (likewise).
    """
    logits = as_float(logits)
    class_weights = output_weight(weight, logits)
    if targets.is_floating_point() and logits.shape[1:2] == (1,) and targets.shape[1:2] == (2,):
        targets = targets[:, 1:]
    if _are_labels(logits, targets):
        labels = as_labels(targets)
        return _from_labels(
            logits, labels, gamma=gamma, weight=class_weights, ignore_index=ignore_index
        )
    return _from_probabilities(
        logits, targets, gamma=gamma, weight=class_weights, soft_form=soft_form
    )


def output_weight(weight: ClassValues | None, logits: Tensor) -> Tensor | None:
    """Return class weights like the logits; a single output has two classes."""
    num_classes = 2 if logits.ndim == 1 else max(logits.shape[1], 2)
    return class_weight(weight, logits, num_classes=num_classes)


def _are_labels(logits: Tensor, targets: Tensor) -> bool:
    """Tell class labels from element targets by their shape."""
    if targets.shape == logits.shape:
        return False
    if targets.shape == logits.shape[:1] + logits.shape[2:] and not targets.is_floating_point():
        return True
    raise ValueError(
        f"{targets.dtype} targets {tuple(targets.shape)} do not fit logits {tuple(logits.shape)}: "
        "give integer labels without the class dimension, or one target for each logit"
    )


def _from_labels(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float,
    weight: Tensor | None,
    ignore_index: int,
) -> Elements:
    """Make every label a positive for its own output and a negative for the others."""
    num_outputs = logits.shape[1]
    valid = targets != ignore_index
    labels = torch.where(valid, targets, 0)
    check_labels(labels, max(num_outputs, 2))
    if not all_count(targets, ignore_index=ignore_index):
        logits = without_ignored(logits, valid)
    first = 1 if num_outputs == 1 else 0
    outputs = torch.arange(first, first + num_outputs, device=logits.device)
    positive = labels.unsqueeze(1) == outputs.view(-1, *[1] * (logits.ndim - 2))
    signed = torch.where(positive, -logits, logits)
    values = _softplus(signed)
    if gamma != 0:
        # Not a power of the sigmoid: its slope is infinite where the sigmoid underflows.
        values = values * torch.exp(-gamma * _softplus(-signed))
    factor = valid.to(logits)
    if weight is not None:
        factor = class_values(weight, targets, ignore_index=ignore_index)
    valid = valid.unsqueeze(1)
    return Elements(values, positive, factor.unsqueeze(1), valid)


def _from_probabilities(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float,
    weight: Tensor | None,
    soft_form: SoftForm,
) -> Elements:
    """Make every target the share of a positive in its output."""
    targets = targets.to(logits)
    check_probabilities(targets)
    # A share of 0 asks nothing, also of a logit whose loss is infinite.
    of_zero = (1 - targets) * _softplus(logits.masked_fill(targets == 1, 0))
    values = of_zero + targets * _softplus(-logits.masked_fill(targets == 0, 0))
    if gamma != 0 and soft_form == "likelihood":
        values = values * focal_modulator(values, gamma=gamma)
    elif gamma != 0:
        values = values * distance_modulator(logits, targets, gamma=gamma)
    valid = torch.ones_like(targets if targets.ndim == 1 else targets[:, :1], dtype=torch.bool)
    if weight is None:
        factor = valid.to(logits)
    elif targets.ndim == 1 or targets.shape[1] == 1:
        factor = torch.lerp(weight[0], weight[1], targets)
    else:
        factor = class_values(weight, targets, ignore_index=0).unsqueeze(1)
    return Elements(values, targets, factor, valid)


def _softplus(logits: Tensor) -> Tensor:
    """Return log(1 + exp(x)), which is x itself in float64 only from 40 on, not from torch's 20."""
    return F.softplus(logits, threshold=40)


def element_normalizer(batch: Elements, *, normalize: ElementNormalizer) -> Tensor:
    """Return what the sum over all elements is divided by, as a scalar tensor."""
    if normalize == "positives":
        return (batch.positive * batch.valid).sum().clamp_min(1)
    num_samples = batch.valid.sum()
    if normalize == "batch" or batch.values.ndim == 1:
        return num_samples
    return num_samples * batch.values.shape[1]


def part_normalizer(targets: Tensor, *, num_outputs: int, normalize: ElementNormalizer) -> Tensor:
    """Return how much of a part of a batch counts: its samples, or pixels, or its positives.

    That of elements is proportional to the first. Integers (N, C) of `num_outputs` columns are a
    target for each logit, and all others are labels, of which -100 does not count.
    """
    targets = as_labels(targets)
    is_soft = targets.is_floating_point()
    if is_soft and num_outputs == 1 and targets.shape[1:2] == (2,):
        targets = targets[:, 1:]
    of_elements = is_soft or targets.shape[1:] == (num_outputs,)
    if normalize == "positives" and (of_elements or num_outputs == 1):
        return (targets if is_soft else targets == 1).sum(dtype=torch.float32)
    if is_soft:
        return targets.new_full((), targets.numel() / num_outputs, dtype=torch.float32)
    valid = torch.count_nonzero(targets != -100).float()
    return valid / num_outputs if of_elements else valid
