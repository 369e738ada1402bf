"""Influence-balanced loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Interval
from torch import Tensor

from ._base import FixedPoint, Idle, Limits, Loss
from ._inputs import ClassValues, as_float, as_labels, class_weight
from ._modulator import check_gamma
from ._reduction import Reduction
from ._sample_loss import SampleLoss
from ._terms import SampleTerm
from .cross_entropy import cross_entropy_loss


def influence_balanced_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    features: Tensor,
    alpha: float = 1000.0,
    gamma: float = 0.0,
    eps: float = 1e-3,
    detach: bool = True,
    weighted_likelihood: bool = False,
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
) -> Tensor:
    """Return w_y CE alpha / (||p - onehot(y)||_1 ||h||_1 + eps) (Park et al. 2021, eqs. 8 and 9).

    "Influence-Balanced Loss for Imbalanced Visual Classification". The divisor is how strongly a
    sample moves the last layer: h are the features before it and ||p - onehot(y)||_1 = 2 (1 - p_y),
    computed without cancellation. Meant for a second phase, after training with cross-entropy.

    The paper re-weights samples, so the factor is a constant here. The authors' code lets the
    gradient through it (``detach=False``), which rewards large features; its scripts use alpha 1000
    and its default is 10000.

    Args:
        logits: (N, C).
        targets: (N,) int64 labels.
        features: (N, D), what the last layer is given.
        alpha: Scale of the loss.
        gamma: Above 0 the focal loss takes the place of the cross-entropy (IB-Focal).
        eps: Keeps the divisor from 0.
        detach: Whether the factor is a constant to the gradient.
        weighted_likelihood: Whether the p of (1 - p)^gamma is read off the weighted likelihood, and
            so is p^w, as in the authors' code.
        weight: (C,) class weights; with those of the effective number it is IB+CB.
        reduction: ``none`` gives (N,); ``mean`` and ``sum`` a scalar.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1.
        ValueError: For gamma below 0, features that do not go with the logits, or an unknown
            reduction.
    """
    check_gamma(gamma)
    if features.ndim != 2 or len(features) != len(logits):
        raise ValueError(f"features must be ({len(logits)}, D), not {tuple(features.shape)}")
    logits, targets = as_float(logits), as_labels(targets)
    features = as_float(features.detach() if detach else features)
    weight = class_weight(weight, logits)
    loss = SampleLoss(
        targets,
        SampleTerm(gamma=gamma, gain=alpha, eps=eps, detach=detach),
        reduction,
        "samples",
        ignore_index,
        weight=None,
        factor=weight,
        power=weight if weighted_likelihood else None,
        size=features.abs().sum(dim=1).to(logits),
    )
    return loss.of(logits)


class InfluenceBalanced(Loss):
    """Cross-entropy at first; then divided by how strongly each sample moves the last layer.

    Args:
        start: Fraction of training after which it begins; plain cross-entropy before.
        alpha: Scale of the loss.
        gamma: Above 0 the focal loss takes the place of the cross-entropy (IB-Focal).
        eps: Keeps the divisor from 0.
        detach: Whether the divisor is a constant to the gradient; the authors' code says no.
        weighted_likelihood: Whether IB-Focal reads its p off the likelihood times the class weight;
            the authors' code says yes.
    """

    needs_features: ClassVar[bool] = True
    aims_at: ClassVar[str] = "balanced accuracy, by samples that move the last layer little"
    fixed_point: ClassVar[FixedPoint] = "none"
    breaks: ClassVar[Mapping[str, str]] = {
        "gradcheck": "its divisor is a constant to the gradient, as in a re-weighting",
        "double_backward": "its divisor is a constant to the gradient, as in a re-weighting",
        "doubled_weights at weighted_likelihood": "its p is p^w, as in the authors' code",
        "weight_of_the_true_class at weighted_likelihood": "its p is p^w, as in the authors' code",
    }
    idle: ClassVar[Idle] = (
        ({"gamma": 0.0}, ("weighted_likelihood",)),
        ({"weight": None}, ("weighted_likelihood",)),
    )
    equals: ClassVar[Limits] = (({"start": 0.95}, "cross_entropy", {}),)

    def __init__(
        self,
        *,
        start: Annotated[float, Interval(ge=0, lt=1)] = 0.5,
        alpha: Annotated[float, Gt(0)] = 1000.0,
        gamma: Annotated[float, Ge(0)] = 0.0,
        eps: Annotated[float, Gt(0)] = 1e-3,
        detach: bool = True,
        weighted_likelihood: bool = False,
    ) -> None:
        super().__init__()
        self.start = start
        self.alpha = alpha
        self.gamma = gamma
        self.eps = eps
        self.detach = detach
        self.weighted_likelihood = weighted_likelihood
        self.has_started = start == 0

    def set_progress(self, epoch: int, epochs: int) -> None:
        """Begin with the first epoch at or after the fraction ``start`` of training."""
        self.has_started = epoch >= self.start * epochs - 1e-9

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
        teacher_logits: Tensor | None = None,
    ) -> Tensor:
        """Return the mean loss of a batch; see `influence_balanced_loss`.

        Raises:
            ValueError: If features are missing.
        """
        del teacher_logits
        self._check_batch(logits, targets)
        if not self.has_started:
            return cross_entropy_loss(logits, targets, weight=self.weight)
        if features is None:
            raise ValueError("influence_balanced needs features=(N, D)")
        return influence_balanced_loss(
            logits,
            targets,
            features=features,
            alpha=self.alpha,
            gamma=self.gamma,
            eps=self.eps,
            detach=self.detach,
            weighted_likelihood=self.weighted_likelihood,
            weight=self.weight,
        )
