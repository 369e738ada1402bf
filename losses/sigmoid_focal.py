"""Focal loss on one sigmoid per class."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Interval
from torch import Tensor

from ._base import ElementMean, FixedPoint, Idle, Limits
from ._element_loss import ElementLoss
from ._inputs import ClassValues
from ._modulator import check_gamma
from ._reduction import Reduction
from ._sigmoid_terms import ElementNormalizer, SoftForm, element_logits, output_weight


def sigmoid_focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    from_logits: bool = True,
    alpha: float | None = None,
    gamma: float = 2.0,
    soft_form: SoftForm = "likelihood",
    weight: ClassValues | None = None,
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

    Targets t between 0 and 1 have two published forms, both with alpha_t = alpha t + (1 - alpha)
    (1 - t): ``likelihood`` has p_t = exp(-BCE), so (1 - exp(-BCE))^gamma BCE; ``distance`` is
    |t - p|^gamma BCE (Li et al. 2020, "Generalized Focal Loss", the quality focal loss). At 0 and 1
    they agree. torchvision mixes p_t = p t + (1 - p)(1 - t), a third that agrees there alone.

    Args:
        logits: (N, C), (N, C, ...), or (N, 1) for two classes with class 1 the positive one;
            probabilities with ``from_logits=False``.
        targets: (N,) or (N, ...) int64 labels; or targets of the logits' shape with values 0 to 1,
            one for each output; or (N, 2, ...) class probabilities for a single output.
        from_logits: Whether logits are logits. A probability of 0 or 1 counts as a logit of +-100.
        alpha: Factor of positives, 0 to 1; negatives get 1 - alpha. None is no factor for either.
        gamma: How strongly outputs that are already right are played down.
        soft_form: How far off an output is for a target between 0 and 1.
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
            form, reduction or normalisation, and a target or probability outside 0 to 1 (on the
            CPU; never when compiled).

    >>> import torch
    >>> logits, targets = torch.tensor([2.0, -1.0, 3.0, -2.0]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    >>> sigmoid_focal_loss(logits, targets, alpha=0.25)
    tensor(0.0047)
    """
    check_gamma(gamma)
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in 0 to 1, not {alpha}")
    if normalize not in ("elements", "batch", "positives"):
        raise ValueError(f"normalize must be elements, batch or positives, not {normalize!r}")
    if soft_form not in ("likelihood", "distance"):
        raise ValueError(f"soft_form must be 'likelihood' or 'distance', not {soft_form!r}")

    logits = element_logits(logits, from_logits=from_logits)
    loss = ElementLoss(
        targets,
        gamma=gamma,
        alpha=alpha,
        weight=output_weight(weight, logits),
        reduction=reduction,
        normalize=normalize,
        ignore_index=ignore_index,
        soft_form=soft_form,
    )
    return loss.of(logits)


class SigmoidFocal(ElementMean):
    """Focal loss on one sigmoid per class: each class against the rest, easy ones played down.

    Args:
        alpha: Factor of positives, negatives get 1 - alpha; none by default. Lower it as gamma
            rises.
        gamma: How strongly outputs that are already right are played down; 0 is binary
            cross-entropy.
        soft_form: How far off an output is for a target t between 0 and 1, as mixing makes them:
            1 - exp(-BCE) (likelihood) or abs(t - p) (distance).
        normalize: What the batch sum is divided by: samples times outputs, samples, or positives.
    """

    activation: ClassVar[Literal["softmax", "sigmoid"]] = "sigmoid"
    takes_soft_targets: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    aims_at: ClassVar[str] = "outputs that the model still gets wrong"
    fixed_point: ClassVar[FixedPoint] = "none"
    idle: ClassVar[Idle] = (
        ({"gamma": 0.0}, ("soft_form",)),
        ({"targets": "labels"}, ("soft_form",)),
    )
    equals: ClassVar[Limits] = (({"gamma": 0.0}, "binary_cross_entropy", {}),)

    def __init__(
        self,
        *,
        alpha: Annotated[float, Interval(ge=0, le=1)] | None = None,
        gamma: Annotated[float, Ge(0)] = 2.0,
        soft_form: Literal["likelihood", "distance"] = "likelihood",
        normalize: Literal["elements", "batch", "positives"] = "elements",
    ) -> None:
        super().__init__(normalize=normalize)
        self.alpha = alpha
        self.gamma = gamma
        self.soft_form: SoftForm = soft_form

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean focal loss of a batch; see `sigmoid_focal_loss`."""
        return sigmoid_focal_loss(
            logits,
            targets,
            alpha=self.alpha,
            gamma=self.gamma,
            soft_form=self.soft_form,
            weight=self.weight,
            normalize=self.normalize,
        )
