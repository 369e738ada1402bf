"""What every loss is: a module with class facts, a class weight, a progress and a `predict`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._targets import is_readable

FixedPoint = Literal["natural", "uniform", "none", "unstated"]
# (keys, other loss, its keys): equal at those keys.
Limits = tuple[tuple[Mapping[str, Any], str, Mapping[str, Any]], ...]


def as_float(logits: Tensor) -> Tensor:
    """Return logits in the precision that losses compute in: float64 stays, the rest is float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


class Loss(nn.Module):
    """Base of the losses: `loss(logits, targets, *, features, teacher_logits)` gives a scalar.

    Class facts, literals in the class body, say what a loss needs and what it can be given:

    * ``activation``: how logits become probabilities (see `predict`).
    * ``takes_soft_targets``: targets may be (N, C) class probabilities, as mixup makes them.
    * ``takes_weight``: `set_weight` has a meaning.
    * ``needs_features``, ``needs_teacher``: the keyword of that name must be given to `forward`.
    * ``dense``: logits may be (N, C, ...) with targets (N, ...).
    * ``draws``: it draws random numbers, from torch's global generator as dropout does.

    And what it promises, which `losses.conformance` holds it to and losses/README.md prints:

    * ``aims_at``: the metric it is for, in a few words.
    * ``fixed_point``: the class probabilities that a model of class scores alone, trained on skewed
      data without weights, ends at: the ``natural`` prior of the data, the ``uniform`` one, or
      ``none`` of the two.
    * ``equals``: (keys, other loss, its keys) for every loss that it is equal to at those keys.
    * ``breaks``: for every check that it does not keep for a good reason, that reason.
    """

    activation: ClassVar[Literal["softmax", "sigmoid"]] = "softmax"
    takes_soft_targets: ClassVar[bool] = False
    takes_weight: ClassVar[bool] = True
    needs_features: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    dense: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    aims_at: ClassVar[str] = ""
    fixed_point: ClassVar[FixedPoint] = "unstated"
    equals: ClassVar[Limits] = ()
    breaks: ClassVar[Mapping[str, str]] = {}

    weight: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        # Not persistent: the weight follows from class counts and progress, so a run sets it anew
        # when it resumes, and a checkpoint made before a deferred start fits one made after.
        self.register_buffer("weight", None, persistent=False)
        self._empty_classes: frozenset[int] = frozenset()
        self._absent_classes: frozenset[int] = frozenset()

    def _note_counts(self, class_counts: Tensor) -> None:
        """Refuse samples of classes without training images from now on, whatever the weights."""
        self._absent_classes = frozenset(torch.nonzero(class_counts == 0).flatten().tolist())

    def set_weight(self, weight: Tensor | None) -> None:
        """Weigh the samples of class c by ``weight[c]`` from now on; None is no weights.

        Args:
            weight: (C,), finite and not negative. A weight of 0 marks a class without training
                images: a sample of it is an error.

        Raises:
            ValueError: If the loss takes no weight, or the weight is not of that form.
        """
        if weight is None:
            self.weight, self._empty_classes = None, frozenset()
            return
        if not self.takes_weight:
            raise ValueError(f"{type(self).__name__} takes no class weights: leave them out")
        if weight.ndim != 1 or not bool((torch.isfinite(weight) & (weight >= 0)).all()):
            raise ValueError("class weights must be C finite numbers that are not negative")
        self.weight = weight
        self._empty_classes = frozenset(torch.nonzero(weight == 0).flatten().tolist())

    def set_progress(self, epoch: int, epochs: int) -> None:
        """Say that epoch number `epoch` (from 0) of `epochs` begins; most losses do not care."""

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
        teacher_logits: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a batch, a scalar in float32 (float64 for float64 logits).

        Args:
            logits: (N, C) or, for dense losses, (N, C, ...).
            targets: (N,) or (N, ...) int64 labels, or soft targets of the logits' shape.
            features: (N, D) pooled features, for losses that need them.
            teacher_logits: (N, C) logits of a teacher, for losses that need them.
        """
        raise NotImplementedError

    def amount(self, targets: Tensor, *, num_outputs: int) -> Tensor:
        """Return how much of a batch counts, a scalar that adds up over parts of the batch.

        `forward` divides its sum by it, or by what `divisor` makes of it. So the mean over a batch
        is the sum of its parts' means, each times its divisor over that of the whole: what pieces
        of a batch and processes that share one have to know.

        Args:
            targets: as for `forward`.
            num_outputs: C of the logits.
        """
        del num_outputs
        return targets.new_full((), len(targets), dtype=torch.float32)

    def divisor(self, amount: Tensor) -> Tensor:
        """Return what a mean over `amount` divides by; where nothing counts the sum is 0 anyway."""
        return torch.where(amount > 0, amount, 1)

    def predict(self, logits: Tensor) -> Tensor:
        """Return class probabilities (N, C, ...) of logits (N, C, ...); they sum to 1 over C.

        Softmax losses: softmax. Sigmoid losses: sigmoids divided by their sum, computed in log
        space; a single output x stands for two classes with probabilities 1 - p and p = sigmoid(x).
        """
        logits = as_float(logits)
        if self.activation == "softmax":
            return logits.softmax(dim=1)
        if logits.shape[1] == 1:
            return torch.cat((logits.neg().sigmoid(), logits.sigmoid()), dim=1)
        return F.logsigmoid(logits).softmax(dim=1)

    def _refuse_empty_classes(self, logits: Tensor, targets: Tensor) -> None:
        """Raise for a label whose class has weight 0 (read on the CPU only: no device sync)."""
        empty = self._empty_classes | self._absent_classes
        if not empty or not is_readable(targets) or targets.shape == logits.shape:
            return
        present = empty.intersection(targets.flatten().tolist())
        if present:
            raise ValueError(
                f"a sample has class {min(present)}, which has no training images "
                "(its count or class weight is 0): remove the sample or give the class a weight"
            )
