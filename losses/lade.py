"""LADE: balanced softmax with a regulariser that disentangles the label distribution."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from ._base import FactsAt, FixedPoint, Idle, Limits, LogitsLoss
from ._counts import MASKED, log_prior
from ._inputs import ClassValues, as_float, as_labels, check_labels, check_labels_fit
from .cross_entropy import cross_entropy_loss


def lade_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    class_counts: ClassValues,
    alpha: float = 0.1,
    penalty: float = 0.1,
    ignore_index: int = -100,
) -> Tensor:
    """Return the balanced softmax loss of a batch plus alpha sum_c prior_c R_c.

    Hong et al. 2021, "Disentangling Label Distribution for Long-tailed Visual Recognition", with
    R_c = -mean_(y_i = c) x_ic + D_c + penalty D_c^2, D_c = log mean_i r_i exp(x_ic) and r_i =
    1 / (C prior_(y_i)): the regularised Donsker-Varadhan bound on how far the images of class c are
    from those of a balanced set. It is lowest where x_c is log p(image | c) - log p(image) for
    balanced classes. At alpha = 0 it is the balanced softmax loss.

    The authors' code has the ratio 1 / (C prior_c) of the class in the place of the sample's r_i:
    it compares with the training images as they come, and a constant shifts its D_c. As there, D_c
    counts for a class that the batch lacks, whose mean is then 0. The terms are of the batch as a
    whole: it is not the mean of its parts.

    Args:
        logits: (N, C).
        targets: (N,) int64 labels.
        class_counts: (C,) training images of each class. One without images takes no part.
        alpha: Strength of the regulariser.
        penalty: Strength of the square in it, which holds the level of the logits.
        ignore_index: The label of samples that do not count.

    Returns:
        A scalar.

    Raises:
        IndexError: For a label outside 0 to C - 1 (on the CPU; never when compiled).
        ValueError: For counts that are negative, not finite or all 0.

    >>> logits = torch.zeros(4, 2)  # all R_c are 0
    >>> lade_loss(logits, torch.tensor([0, 0, 0, 1]), class_counts=[3, 1])
    tensor(0.5623)
    """
    return _regularised(
        logits,
        targets,
        log_prior=log_prior(class_counts, num_classes=logits.shape[1]),
        alpha=alpha,
        penalty=penalty,
        ignore_index=ignore_index,
    )


def _regularised(
    logits: Tensor,
    targets: Tensor,
    *,
    log_prior: Tensor,
    alpha: float,
    penalty: float,
    ignore_index: int,
) -> Tensor:
    check_labels_fit(logits, targets)
    logits, targets = as_float(logits), as_labels(targets)
    prior = log_prior.to(logits)
    likelihood = cross_entropy_loss(logits + prior, targets, ignore_index=ignore_index)
    if alpha == 0:
        return likelihood
    valid = targets != ignore_index
    labels = torch.where(valid, targets, 0)
    check_labels(labels, logits.shape[1])
    # Whatever they are, minus infinity too: classes without images, and samples that do not count,
    # have a factor of 0 below.
    logits = torch.where((prior > MASKED) & valid.unsqueeze(1), logits, 0)
    divergence = _divergence(logits, labels, valid=valid, log_prior=prior)
    means = _class_means(logits, labels, valid=valid)
    terms = prior.exp() * (divergence + penalty * divergence**2 - means)
    return likelihood + alpha * torch.where(valid.any(), terms.sum(), 0)


def _divergence(logits: Tensor, labels: Tensor, *, valid: Tensor, log_prior: Tensor) -> Tensor:
    """Return D (C,): the log of the mean of exp(x) over a batch made balanced by its weights."""
    num_present = (log_prior > MASKED).sum().to(logits)
    log_ratio = -(log_prior[labels] + num_present.log())
    log_ratio = torch.where(valid, log_ratio, MASKED).unsqueeze(1)
    return (logits + log_ratio).logsumexp(dim=0) - valid.sum().clamp_min(1).to(logits).log()


def _class_means(logits: Tensor, labels: Tensor, *, valid: Tensor) -> Tensor:
    """Return the mean logit (C,) that each class has for its own samples, 0 without any."""
    own = logits.gather(1, labels.unsqueeze(1)).squeeze(1) * valid
    sums = logits.new_zeros(logits.shape[1]).index_add(0, labels, own)
    counts = logits.new_zeros(logits.shape[1]).index_add(0, labels, valid.to(logits))
    return sums / counts.clamp_min(1)


class Lade(LogitsLoss):
    """Balanced softmax with a regulariser that takes the training shares out of the logits.

    Args:
        alpha: Strength of the regulariser; 0 is the balanced softmax.
        penalty: Strength of the square in it, which holds the level of the logits.
    """

    takes_weight: ClassVar[bool] = False
    is_mean_over_samples: ClassVar[bool] = False
    aims_at: ClassVar[str] = "balanced accuracy"
    fixed_point: ClassVar[FixedPoint] = "uniform"
    facts_at: ClassVar[FactsAt] = (({"alpha": 0.0}, {"is_mean_over_samples": True}),)
    idle: ClassVar[Idle] = (({"alpha": 0.0}, ("penalty",)),)
    equals: ClassVar[Limits] = (({"alpha": 0.0}, "balanced_softmax", {}),)

    log_prior: Tensor

    def __init__(
        self,
        class_counts: ClassValues,
        *,
        alpha: Annotated[float, Ge(0)] = 0.1,
        penalty: Annotated[float, Ge(0)] = 0.1,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.penalty = penalty
        self._note_counts(class_counts)
        # Not persistent: it follows from the data set, which is where a run takes it from.
        self.register_buffer("log_prior", log_prior(class_counts), persistent=False)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch; see `lade_loss`."""
        return _regularised(
            logits,
            targets,
            log_prior=self.log_prior,
            alpha=self.alpha,
            penalty=self.penalty,
            ignore_index=-100,
        )
