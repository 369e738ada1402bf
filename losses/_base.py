"""What every loss is: a module with class facts, a class weight, a progress and a `predict`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._counts import checked_counts
from ._inputs import ClassValues, as_float, checked_values, is_readable
from ._reduction import SampleNormalizer, sample_normalizer
from ._sigmoid_terms import ElementNormalizer, part_normalizer

FixedPoint = Literal["natural", "uniform", "none", "unstated"]
# (keys, other loss, its keys): equal at those keys.
Limits = tuple[tuple[Mapping[str, Any], str, Mapping[str, Any]], ...]
# (keys, facts): what holds at those keys.
FactsAt = tuple[tuple[Mapping[str, Any], Mapping[str, Any]], ...]
# (conditions, keys): where the conditions hold, the keys change nothing.
Idle = tuple[tuple[Mapping[str, Any], tuple[str, ...]], ...]


class Loss(nn.Module):
    """Base of the losses: `loss(logits, targets, *, features, teacher_logits)` gives a scalar.

    Class facts, literals in the class body, say what a loss needs and what it can be given:

    * ``activation``: how logits become probabilities (see `predict`).
    * ``takes_soft_targets``: targets may be (N, C) class probabilities, as mixup makes them.
    * ``takes_weight``: `set_weight` has a meaning.
    * ``needs_features``, ``needs_teacher``: the keyword of that name must be given to `forward`.
    * ``dense``: logits may be (N, C, ...) with targets (N, ...).
    * ``draws``: it draws random numbers, from torch's global generator as dropout does.
    * ``for_cosines``: logits are cosines, -1 to 1, and it multiplies them by a scale of its own.
      Without a scale no softmax of cosines is confident, with one that of other logits is too much
      so.
    * ``is_mean_over_samples``: the loss of a batch is put together from those of its parts (see
      `normalizer`).
    * ``idle``: (conditions, keys): keys that change nothing where all conditions hold. A condition
      is a key and its value, or the name of another key that has the same value; ``"weight": None``
      is to have no class weights, ``"targets": "labels"`` no soft targets, ``"dense": False`` no
      logits (N, C, ...).

    And what it promises, which `losses.conformance` holds it to and losses/README.md prints:

    * ``aims_at``: the metric it is for, in a few words.
    * ``fixed_point``: the class probabilities that a model of class scores alone, trained on skewed
      data without weights, ends at: the ``natural`` prior of the data, the ``uniform`` one, or
      ``none`` of the two.
    * ``equals``: (keys, other loss, its keys) for every loss that it is equal to at those keys.
    * ``facts_at``: (keys, facts): where all those keys have these values, ``fixed_point`` or
      ``is_mean_over_samples`` are those, of the first that fits, instead of what is stated for
      others.
    * ``breaks``: for every check that it does not keep for a good reason, that reason.
    """

    activation: ClassVar[Literal["softmax", "sigmoid"]] = "softmax"
    takes_soft_targets: ClassVar[bool] = False
    takes_weight: ClassVar[bool] = True
    needs_features: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    dense: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    for_cosines: ClassVar[bool] = False
    is_mean_over_samples: ClassVar[bool] = True
    idle: ClassVar[Idle] = ()
    aims_at: ClassVar[str] = ""
    fixed_point: ClassVar[FixedPoint] = "unstated"
    equals: ClassVar[Limits] = ()
    facts_at: ClassVar[FactsAt] = ()
    breaks: ClassVar[Mapping[str, str]] = {}

    weight: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        # Not persistent: the weight follows from class counts and progress, so a run sets it anew
        # when it resumes, and a checkpoint made before a deferred start fits one made after.
        self.register_buffer("weight", None, persistent=False)
        self._num_classes: int | None = None
        self._empty_classes: frozenset[int] = frozenset()
        self._absent_classes: frozenset[int] = frozenset()

    def _note_counts(self, class_counts: ClassValues) -> None:
        """Refuse samples of classes without training images from now on, whatever the weights."""
        counts = checked_counts(class_counts)
        self._num_classes = len(counts)
        self._absent_classes = frozenset(torch.nonzero(counts == 0).flatten().tolist())

    def set_weight(self, weight: ClassValues | None) -> None:
        """Weigh the samples of class c by ``weight[c]`` from now on; None is no weights.

        Args:
            weight: (C,), finite and not negative. A sample of a class of weight 0, which classes
                without training images have, is an error.

        Raises:
            ValueError: If the loss takes no weight, or the weight is not of that form.
        """
        if weight is None:
            self.weight, self._empty_classes = None, frozenset()
            return
        if not self.takes_weight:
            raise ValueError(f"{type(self).__name__} takes no class weights: leave them out")
        self.weight = checked_values(weight, self._num_classes, name="class weights")
        self._empty_classes = frozenset(torch.nonzero(self.weight == 0).flatten().tolist())

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

    def normalizer(self, targets: Tensor, *, num_outputs: int) -> Tensor:
        """Return how much of a batch counts, a scalar that adds up over parts of the batch.

        `forward` divides its sum by it, or by what `divisor` makes of it. So the mean over a batch
        is the sum of its parts' means, each times its divisor over that of the whole: what pieces
        of a batch and processes that share one have to know. Here it is the number of samples, or
        pixels, without those of label -100.

        Args:
            targets: as for `forward`.
            num_outputs: C of the logits.
        """
        return part_normalizer(targets, num_outputs=num_outputs, normalize="batch")

    def divisor(self, normalizer: Tensor) -> Tensor:
        """Return what a mean divides by: `normalizer`, or 1 where nothing counts."""
        return torch.where(normalizer > 0, normalizer, 1)

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

    def _check_batch(self, logits: Tensor, targets: Tensor) -> None:
        """Raise for logits of another number of classes, and for labels whose class has weight 0.

        Labels are read on the CPU only, where that costs no device sync.
        """
        num_outputs = logits.shape[1]
        if self._num_classes not in (None, num_outputs) or num_outputs == 1:
            self._check_number(num_outputs)
        empty = self._empty_classes | self._absent_classes
        if not empty or not is_readable(targets):
            return
        if targets.is_floating_point() or targets.shape == logits.shape:
            return  # no labels
        present = empty.intersection(targets.flatten().tolist())
        if present & self._absent_classes:
            raise ValueError(
                f"a sample has class {min(present & self._absent_classes)}, which has no training "
                "images (its count is 0): remove the sample"
            )
        if present:
            raise ValueError(
                f"a sample has class {min(present)}, whose class weight is 0: remove the sample or "
                "give the class a weight above 0"
            )

    def _check_number(self, num_outputs: int) -> None:
        """Raise ValueError unless so many logits a sample are those of the loss's classes."""
        known = self._num_classes
        if num_outputs == 1 and self.activation == "softmax":
            raise ValueError(
                "a softmax over one logit is always 1, and nothing would be learnt: give a logit "
                "for each class, or take a loss on sigmoids"
            )
        if known not in (None, 2 if num_outputs == 1 else num_outputs):
            two = "; one output stands for two" if num_outputs == 1 else ""
            raise ValueError(
                f"logits of {num_outputs} output{'s'[: num_outputs != 1]} do not fit a loss that "
                f"was made for {known} class{'es'[: 2 * (known != 1)]}{two}"
            )


class LogitsLoss(Loss):
    """Loss of logits and targets alone; a subclass says what `batch_mean` is."""

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
        teacher_logits: Tensor | None = None,
    ) -> Tensor:
        """Return the mean loss of a batch, as the function of the same file has it."""
        del features, teacher_logits
        self._check_batch(logits, targets)
        return self.batch_mean(logits, targets)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch whose targets all have training images."""
        raise NotImplementedError


class SampleMean(LogitsLoss):
    """Mean over samples: their number divides the sum, or the sum of their class weights."""

    def __init__(self, *, normalize: SampleNormalizer) -> None:
        super().__init__()
        self.normalize = normalize

    def normalizer(self, targets: Tensor, *, num_outputs: int) -> Tensor:
        """Return the number of samples, or the sum of their weights."""
        del num_outputs
        total = sample_normalizer(targets, self.weight, normalize=self.normalize, ignore_index=-100)
        return torch.as_tensor(total, dtype=torch.float32, device=targets.device)


class ElementMean(LogitsLoss):
    """Mean of one sigmoid a class: samples times outputs, samples, or positives divide the sum."""

    def __init__(self, *, normalize: ElementNormalizer) -> None:
        super().__init__()
        self.normalize = normalize

    def normalizer(self, targets: Tensor, *, num_outputs: int) -> Tensor:
        """Return the number of samples, or pixels, that count, or that of positives."""
        return part_normalizer(targets, num_outputs=num_outputs, normalize=self.normalize)

    def divisor(self, normalizer: Tensor) -> Tensor:
        """Return at least 1 for positives, as the loss does."""
        at_least_one = self.normalize == "positives"
        return normalizer.clamp_min(1) if at_least_one else super().divisor(normalizer)
