"""Focal loss on one sigmoid per class."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge, Interval
from torch import Tensor

from ._base import Loss, as_float
from ._modulator import check_gamma, focal_modulator
from ._reduction import Reduction, reduce_values
from ._targets import check_labels, check_probabilities, class_values

ElementNormalizer = Literal["elements", "batch", "positives"]


def sigmoid_focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: float | None = None,
    gamma: float = 2.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    normalize: ElementNormalizer = "elements",
    ignore_index: int = -100,
) -> Tensor:
    """Return alpha_t (1 - p_t)^gamma (-log p_t), summed or averaged over samples and outputs.

    The focal loss of Lin et al. 2017 ("Focal Loss for Dense Object Detection", eq. 5): every output
    is a binary problem, p_t is the probability that it gives to its target, and alpha_t is alpha
    for positives and 1 - alpha for negatives. With gamma = 0 and no alpha it is binary
    cross-entropy. A label is a positive for its own output and a negative for all others. For
    labels it is computed on the signed logit z = (1 - 2t) x as sigmoid(z)^gamma softplus(z), finite
    for any logits, gradient included; the widespread exp(-gamma t x - gamma log(1 + exp(-x))) loses
    the worst mistakes.

    Targets t between 0 and 1 use p_t = exp(-BCE), that is (1 - exp(-BCE))^gamma BCE, and
    alpha_t = alpha t + (1 - alpha)(1 - t). torchvision mixes p_t = p t + (1 - p)(1 - t) instead:
    the two agree at 0 and 1 and nowhere between.

    Args:
        logits: (N, C), (N, C, ...), or (N, 1) for two classes with class 1 the positive one.
        targets: (N,) or (N, ...) int64 labels; or targets of the logits' shape with values 0 to 1,
            one for each output; or (N, 2, ...) class probabilities for a single output.
        alpha: Factor of positives, 0 to 1; negatives get 1 - alpha. None is no factor for either.
        gamma: How strongly outputs that are already right are played down.
        weight: (C,) class weights, two for a single output. The weight of a sample's class, or
            sum_c t_c w_c, multiplies all of its outputs (Cui et al. 2019, sec. 4.3).
        reduction: ``none`` gives the logits' shape; ``mean`` and ``sum`` a scalar.
        normalize: What ``mean`` divides by: all ``elements`` (samples times outputs, as torchvision
            and mmpretrain), samples in the ``batch`` (Cui et al. 2019), or ``positives``, at least
            1 (Lin et al. 2017). The first is C times smaller than the second.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label out of range (on the CPU; never when compiled).
        ValueError: For shapes that do not fit, alpha outside 0 to 1, gamma below 0, an unknown
            reduction or normalisation, and a target outside 0 to 1 (on the CPU; never when
            compiled).

    >>> logits, targets = torch.tensor([2.0, -1.0, 3.0, -2.0]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    >>> sigmoid_focal_loss(logits, targets, alpha=0.25)
    tensor(0.0047)
    """
    check_gamma(gamma)
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in 0 to 1, not {alpha}")
    if normalize not in ("elements", "batch", "positives"):
        raise ValueError(f"normalize must be elements, batch or positives, not {normalize!r}")
    logits = as_float(logits)
    weight = None if weight is None else _checked_weight(weight, logits)
    if targets.is_floating_point() and logits.shape[1:2] == (1,) and targets.shape[1:2] == (2,):
        targets = targets[:, 1:]
    if _are_labels(logits, targets):
        batch = _from_labels(logits, targets, gamma=gamma, weight=weight, ignore_index=ignore_index)
    else:
        batch = _from_probabilities(logits, targets, gamma=gamma, weight=weight)
    values = batch.values * _with_alpha(batch, alpha)
    normalizer = _normalizer(batch, normalize=normalize)
    return reduce_values(values, reduction=reduction, normalizer=normalizer)


class _Batch(NamedTuple):
    """Elements of a batch, of the logits' shape or one that broadcasts to it."""

    values: Tensor  # (1 - p_t)^gamma (-log p_t)
    positive: Tensor  # whether each element is a positive, or how much of one, 0 to 1
    factor: Tensor  # weight of the sample, 0 where it is ignored
    valid: Tensor  # bool: whether the sample counts


def _checked_weight(weight: Tensor, logits: Tensor) -> Tensor:
    """Return class weights like the logits; a single output has two classes."""
    num_classes = 2 if logits.ndim == 1 else max(logits.shape[1], 2)
    if weight.shape != (num_classes,):
        raise ValueError(f"weight must be {num_classes} numbers, not shape {tuple(weight.shape)}")
    return weight.to(logits)


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
) -> _Batch:
    """Make every label a positive for its own output and a negative for the others."""
    num_outputs = logits.shape[1]
    valid = targets != ignore_index
    labels = torch.where(valid, targets, 0)
    check_labels(labels, max(num_outputs, 2))
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
    return _Batch(values, positive, factor.unsqueeze(1), valid)


def _from_probabilities(
    logits: Tensor, targets: Tensor, *, gamma: float, weight: Tensor | None
) -> _Batch:
    """Make every target the share of a positive in its output."""
    targets = targets.to(logits)
    check_probabilities(targets)
    values = (1 - targets) * _softplus(logits) + targets * _softplus(-logits)
    if gamma != 0:
        values = values * focal_modulator(values, gamma=gamma)
    valid = torch.ones_like(targets if targets.ndim == 1 else targets[:, :1], dtype=torch.bool)
    if weight is None:
        factor = valid.to(logits)
    elif targets.ndim == 1 or targets.shape[1] == 1:
        factor = torch.lerp(weight[0], weight[1], targets)
    else:
        factor = class_values(weight, targets, ignore_index=0).unsqueeze(1)
    return _Batch(values, targets, factor, valid)


def _softplus(logits: Tensor) -> Tensor:
    """Return log(1 + exp(x)), which is x itself in float64 only from 40 on, not from torch's 20."""
    return F.softplus(logits, threshold=40)


def _with_alpha(batch: _Batch, alpha: float | None) -> Tensor:
    """Return the factor of each element: the sample's, times alpha or 1 - alpha."""
    if alpha is None:
        return batch.factor
    if batch.positive.dtype == torch.bool:
        return torch.where(batch.positive, alpha * batch.factor, (1 - alpha) * batch.factor)
    return (alpha * batch.positive + (1 - alpha) * (1 - batch.positive)) * batch.factor


def _normalizer(batch: _Batch, *, normalize: ElementNormalizer) -> Tensor:
    """Return what the sum over all elements is divided by, as a scalar tensor."""
    if normalize == "positives":
        return (batch.positive * batch.valid).sum().clamp_min(1)
    num_samples = batch.valid.sum()
    if normalize == "batch" or batch.values.ndim == 1:
        return num_samples
    return num_samples * batch.values.shape[1]


class SigmoidFocal(Loss):
    """Focal loss on one sigmoid per class: each class against the rest, easy ones played down.

    Args:
        alpha: Factor of positives, negatives get 1 - alpha; none by default. Lower it as gamma
            rises.
        gamma: How strongly outputs that are already right are played down; 0 is binary
            cross-entropy.
        normalize: What the batch sum is divided by: samples times outputs, samples, or positives.
    """

    activation: ClassVar[Literal["softmax", "sigmoid"]] = "sigmoid"
    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True

    def __init__(
        self,
        *,
        alpha: Annotated[float, Interval(ge=0, le=1)] | None = None,
        gamma: Annotated[float, Ge(0)] = 2.0,
        normalize: Literal["elements", "batch", "positives"] = "elements",
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.normalize = normalize

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
        teacher_logits: Tensor | None = None,
    ) -> Tensor:
        """Return the mean focal loss of a batch; see `sigmoid_focal_loss`."""
        del features, teacher_logits
        self._refuse_empty_classes(logits, targets)
        return sigmoid_focal_loss(
            logits,
            targets,
            alpha=self.alpha,
            gamma=self.gamma,
            weight=self.weight,
            normalize=self.normalize,
        )

    def amount(self, targets: Tensor, *, num_outputs: int) -> Tensor:
        """Return the number of samples, to which that of elements is proportional, or positives."""
        if self.normalize != "positives" or (num_outputs > 1 and not targets.is_floating_point()):
            return super().amount(targets, num_outputs=num_outputs)
        positive = targets if targets.is_floating_point() else targets == 1
        return positive.sum().float()

    def divisor(self, amount: Tensor) -> Tensor:
        """Return at least 1 for positives, as the loss does."""
        return amount.clamp_min(1) if self.normalize == "positives" else super().divisor(amount)
