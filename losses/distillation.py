"""Distillation for class-incremental learning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from ._base import FixedPoint, Idle, Loss
from ._counts import checked_counts
from ._inputs import (
    ClassValues,
    as_float,
    as_labels,
    check_fit,
    check_labels,
    class_values,
    class_weight,
    counted_logits,
    is_readable,
)
from ._reduction import Reduction, reduce_values, sample_normalizer
from .cross_entropy import cross_entropy_loss

Divergence = Literal["binary_cross_entropy", "kl"]


def distillation_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    teacher_logits: Tensor,
    old_classes: Sequence[int],
    new_classes: Sequence[int] | None = None,
    distill_weight: float = 10.0,
    temperature: float = 2.0,
    teacher_temperature: float | None = None,
    divergence: Divergence = "binary_cross_entropy",
    weight: ClassValues | None = None,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
) -> Tensor:
    """Return CE(new logits, y) + distill_weight * D(q, p), which learns new classes and keeps old.

    The cross-entropy is that of a softmax over the new classes alone. p = softmax(x_old / T) is
    what the student says of the old classes, q = softmax(x'_old / T') what the teacher does; the
    gradient reaches the student only. D of a sample is

    * ``binary_cross_entropy``: -1/K sum_c (q_c log p_c + (1 - q_c) log(1 - p_c)) over the K old
      classes, each softened probability taken as a task of its own, as public code for
      class-incremental learning has it. It is smallest, but not 0, at p = q. Common snippets soften
      the student only: ``teacher_temperature=1``. They hand rounded probabilities to a binary
      cross-entropy, which cuts log 0 off at -100 and the gradient with it; here log(1 - p_c) comes
      from the logits, and is exact.
    * ``kl``: T^2 KL(q || p), the distillation of Hinton et al. 2015 ("Distilling the Knowledge in a
      Neural Network", section 2, which also says why T^2) on the old classes, as "Learning without
      Forgetting" (Li and Hoiem 2016, eq. 2) uses it up to the T^2 and the teacher's own entropy.
      It is not divided by K and its gradient does not shrink with T: a weight near 1 goes with it.

    Classes that are neither old nor new take no part: their logits have no gradient.

    Args:
        logits: (N, C) or (N, C, ...) of the student.
        targets: (N,) or (N, ...) int64 labels of new classes, or floating class probabilities of
            the logits' shape that are 0 outside them.
        teacher_logits: of the logits' shape.
        old_classes: Labels that the teacher knows, at least 2.
        new_classes: Labels that are learnt now, at least 2; by default all that are not old. The
            two may overlap, where images of old classes are trained on again.
        distill_weight: Of D against the cross-entropy.
        temperature: T.
        teacher_temperature: T', by default the same.
        divergence: D.
        weight: (C,) class weights: they weigh a sample, its cross-entropy and its D.
        reduction: ``none`` gives (N, ...); ``mean`` and ``sum`` a scalar.
        ignore_index: The label of samples that do not count.

    Raises:
        IndexError: For a label outside 0 to C - 1.
        ValueError: For a target that is no new class (on the CPU; never when compiled), classes
            that are too few, repeated or out of range, teacher logits of another shape, an unknown
            divergence or reduction.

    >>> logits = torch.zeros(1, 4)
    >>> distillation_loss(  # log 2 + 10 log 2
    ...     logits, torch.tensor([3]), teacher_logits=logits, old_classes=[0, 1]
    ... )
    tensor(7.6246)
    """
    old, new = _check_classes(old_classes, new_classes, num_classes=logits.shape[1])
    return _distillation(
        logits,
        targets,
        teacher_logits=teacher_logits,
        old_index=torch.tensor(old, device=logits.device),
        new_index=torch.tensor(new, device=logits.device),
        distill_weight=distill_weight,
        temperature=temperature,
        teacher_temperature=teacher_temperature,
        divergence=divergence,
        weight=weight,
        reduction=reduction,
        ignore_index=ignore_index,
    )


def _distillation(
    logits: Tensor,
    targets: Tensor,
    *,
    teacher_logits: Tensor,
    old_index: Tensor,
    new_index: Tensor,
    distill_weight: float,
    temperature: float,
    teacher_temperature: float | None,
    divergence: Divergence,
    weight: ClassValues | None,
    reduction: Reduction = "mean",
    ignore_index: int = -100,
) -> Tensor:
    check_fit(logits, targets)
    if teacher_logits.shape != logits.shape:
        raise ValueError(
            f"teacher_logits must be {tuple(logits.shape)} as the logits, not "
            f"{tuple(teacher_logits.shape)}"
        )
    logits, targets = as_float(logits), as_labels(targets)
    logits = counted_logits(logits, targets, ignore_index=ignore_index)
    teacher_logits = counted_logits(
        as_float(teacher_logits.detach()), targets, ignore_index=ignore_index
    )
    weight = class_weight(weight, logits)
    values = cross_entropy_loss(
        logits.index_select(1, new_index),
        _among(new_index, targets, num_classes=logits.shape[1], ignore_index=ignore_index),
        weight=None if weight is None else weight[new_index],
        reduction="none",
    )
    softened = temperature if teacher_temperature is None else teacher_temperature
    distilled = _divergences(
        logits.index_select(1, old_index) / temperature,
        teacher_logits.index_select(1, old_index).to(logits) / softened,
        divergence=divergence,
        temperature=temperature,
    )
    if not targets.is_floating_point():
        distilled = torch.where(targets == ignore_index, 0, distilled)
    if weight is not None:
        distilled = distilled * class_values(weight, targets, ignore_index=ignore_index)
    values = values + distill_weight * distilled
    normalizer = sample_normalizer(targets, None, normalize="samples", ignore_index=ignore_index)
    return reduce_values(values, reduction=reduction, normalizer=normalizer)


def _check_classes(
    old_classes: Sequence[int], new_classes: Sequence[int] | None, *, num_classes: int
) -> tuple[list[int], list[int]]:
    """Return the old and the new labels.

    Raises:
        ValueError: If either are fewer than 2, repeated or outside 0 to C - 1.
    """
    old = [int(c) for c in old_classes]
    if new_classes is None:
        new = [c for c in range(num_classes) if c not in old]
    else:
        new = [int(c) for c in new_classes]
    for kind, labels in (("old", old), ("new", new)):
        if len(labels) < 2:
            raise ValueError(f"{kind} classes must be at least 2: a softmax over one is always 1")
        if len(set(labels)) < len(labels) or not 0 <= min(labels) <= max(labels) < num_classes:
            raise ValueError(f"{kind} classes must be different labels, 0 to {num_classes - 1}")
    return old, new


def _among(new_index: Tensor, targets: Tensor, *, num_classes: int, ignore_index: int) -> Tensor:
    """Return targets as they are among the new classes only; ignored labels become -100.

    Raises:
        IndexError: For a label outside 0 to C - 1 (on the CPU; never when compiled).
        ValueError: For a target that is no new class (likewise).
    """
    if targets.is_floating_point():
        inside = targets.index_select(1, new_index)
        if is_readable(targets):
            total, kept = (t.sum(1, dtype=torch.float64) for t in (targets, inside))
            if bool((total - kept > 1e-4).any()):
                raise ValueError(
                    "a soft target has a share of a class that is not among the new ones"
                )
        return inside
    valid = targets != ignore_index
    labels = torch.where(valid, targets, 0)
    check_labels(labels, num_classes)
    # What is no new class gets a position out of range, which no backend lets pass.
    positions = torch.full((num_classes,), num_classes, device=targets.device)
    positions[new_index] = torch.arange(len(new_index), device=targets.device)
    among = torch.where(valid, positions[labels], -100)
    if is_readable(among) and bool((among == num_classes).any()):
        raise ValueError(
            f"a sample has class {int(targets[among == num_classes][0])}, which is not among the "
            "new classes"
        )
    return among


def _divergences(
    student: Tensor, teacher: Tensor, *, divergence: Divergence, temperature: float
) -> Tensor:
    """Return D of each sample (N, ...) for softened logits (N, K, ...) of the old classes."""
    log_p, log_q = student.log_softmax(dim=1), teacher.log_softmax(dim=1)
    if divergence == "binary_cross_entropy":
        tasks = log_q.exp() * log_p + _log_complement(log_q).exp() * _log_complement(log_p)
        return -tasks.mean(dim=1)
    if divergence == "kl":
        return temperature**2 * (log_q.exp() * (log_q - log_p)).sum(dim=1)
    raise ValueError(f"divergence must be 'binary_cross_entropy' or 'kl', not {divergence!r}")


def _log_complement(log_p: Tensor) -> Tensor:
    """Return log(1 - p) for log-probabilities (N, K, ...), K >= 2, without cancellation.

    Of the largest p it is the logarithm of the sum of the others; every other p is at most 1/2.
    """
    classes = torch.arange(log_p.shape[1], device=log_p.device).view(-1, *[1] * (log_p.ndim - 2))
    is_largest = log_p.argmax(dim=1, keepdim=True) == classes
    of_largest = log_p.masked_fill(is_largest, -torch.inf).logsumexp(dim=1, keepdim=True)
    of_others = torch.log1p(-log_p.masked_fill(is_largest, -torch.inf).exp())
    return torch.where(is_largest, of_largest, of_others)


class Distillation(Loss):
    """Cross-entropy over the classes in training, and what a teacher says of the classes it knows.

    Args:
        distill_weight: Of keeping the old classes, against learning the new ones.
        temperature: Softens the student's probabilities of the old classes.
        teacher_temperature: Softens the teacher's; null takes temperature, 1 is the common snippet.
        divergence: How far student and teacher are apart: a binary cross-entropy for each old
            class, or T^2 times the Kullback-Leibler divergence (then distill_weight near 1).
    """

    takes_soft_targets: ClassVar[bool] = True
    needs_teacher: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    aims_at: ClassVar[str] = "new classes without forgetting those that the teacher knows"
    fixed_point: ClassVar[FixedPoint] = "none"
    idle: ClassVar[Idle] = (
        ({"distill_weight": 0.0}, ("temperature", "teacher_temperature", "divergence")),
    )

    old_index: Tensor
    new_index: Tensor

    def __init__(
        self,
        class_counts: ClassValues,
        old_classes: Sequence[int],
        *,
        distill_weight: Annotated[float, Ge(0)] = 10.0,
        temperature: Annotated[float, Gt(0)] = 2.0,
        teacher_temperature: Annotated[float, Gt(0)] | None = None,
        divergence: Literal["binary_cross_entropy", "kl"] = "binary_cross_entropy",
    ) -> None:
        super().__init__()
        self.distill_weight = distill_weight
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.divergence: Divergence = divergence
        counts = checked_counts(class_counts)
        new_classes = torch.nonzero(counts).flatten().tolist()
        old, new = _check_classes(old_classes, new_classes, num_classes=len(counts))
        self._note_counts(class_counts)
        # Not persistent: they follow from the data set and the teacher, which a run starts from.
        self.register_buffer("old_index", torch.tensor(old), persistent=False)
        self.register_buffer("new_index", torch.tensor(new), persistent=False)

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
        teacher_logits: Tensor | None = None,
    ) -> Tensor:
        """Return the mean loss of a batch; see `distillation_loss`.

        Raises:
            ValueError: If teacher logits are missing.
        """
        del features
        if teacher_logits is None:
            raise ValueError("distillation needs teacher_logits=(N, C)")
        self._check_batch(logits, targets)
        return _distillation(
            logits,
            targets,
            teacher_logits=teacher_logits,
            old_index=self.old_index,
            new_index=self.new_index,
            distill_weight=self.distill_weight,
            temperature=self.temperature,
            teacher_temperature=self.teacher_temperature,
            divergence=self.divergence,
            weight=self.weight,
        )
