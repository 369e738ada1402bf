"""Losses that are a function of each sample's cross-entropy."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ._adjustment import UNADJUSTED, Adjustment
from ._device import is_on_device
from ._device_softmax import device_loss
from ._fused import GradientInForward, Made, can_fuse
from ._fused_softmax import MIN_PARTED, Samples, classes_go_first, softmax_in_parts
from ._inputs import (
    all_count,
    check_labels,
    check_labels_fit,
    class_values,
    known_labels,
    without_ignored,
)
from ._reduction import (
    Reduction,
    SampleNormalizer,
    as_divisor,
    check_normalize,
    reduce_values,
    sample_normalizer,
)
from ._terms import SampleTerm


class SampleLoss(NamedTuple):
    """A loss of labels but for its logits; its numbers are float32 or float64 as those are."""

    labels: Tensor  # (N,) or (N, ...)
    term: SampleTerm
    reduction: Reduction  # "none" gives (N, ...); "mean" and "sum" a scalar
    normalize: SampleNormalizer  # what a mean divides by; where it is 0 the mean is 0
    ignore_index: int  # the label of samples that do not count
    weight: Tensor | None  # (C,), by which a mean over the weights counts samples
    factor: Tensor | None  # (C,)
    power: Tensor | None = None  # (C,)
    size: Tensor | None = None  # (N, ...)
    adjustment: Adjustment = UNADJUSTED  # what is done to the logits before the softmax

    def of(self, logits: Tensor) -> Tensor:
        """Return the loss of logits (N, C) or (N, C, ...).

        Here it is chosen how: composed, or with a gradient that is made by a kernel of a device, at
        once or part by part.

        Raises:
            IndexError: For a label outside 0 to C - 1.
            ValueError: For labels that do not fit, an unknown reduction or normalisation.
        """
        check_normalize(self.normalize)
        if is_on_device(logits):
            found = device_loss(logits, self)
            return self.composed(logits) if found is None else found
        labels, shape = self.labels, logits.shape
        vectors = (self.weight, self.factor, self.power, self.size)
        made = None
        if (
            self.reduction in ("mean", "sum")
            and labels.dtype == torch.int64
            and labels.shape == (shape[0], *shape[2:])
            and self.term.detach
            and can_fuse("softmax", logits, *vectors, *self.adjustment)
        ):
            if logits.numel() >= MIN_PARTED:
                made = self._in_parts(logits.detach())
            elif len(shape) == 2:
                made = self._at_once(logits.detach())
        if made is None:
            return self.composed(logits)
        return GradientInForward.apply(logits, made, self.composed)

    def composed(self, logits: Tensor) -> Tensor:
        """Return the same, composed of PyTorch's functions: the definition of the loss."""
        # Other ways of making it are not for labels that do not fit.
        check_labels_fit(logits, self.labels)
        labels = known = self.labels
        ignored: int | None = self.ignore_index
        if all_count(labels, ignore_index=self.ignore_index):
            ignored = None
        elif self.adjustment.own is not None:
            known = known_labels(labels, ignore_index=self.ignore_index)
            check_labels(known, logits.shape[1])
        if ignored is not None:
            logits = without_ignored(logits, labels != ignored)
        try:
            logits = self.adjustment.of(logits, known)
        except IndexError:
            check_labels(known, logits.shape[1])
            raise
        nll = F.cross_entropy(logits, labels, reduction="none", ignore_index=self.ignore_index)
        values = self.term.of(nll, *self._of_samples(ignored)).values
        # Others are 0 at a cross-entropy of 0.
        if ignored is not None and (self.term.epsilon != 0 or self.size is not None):
            values = values.where(labels != ignored, 0)
        return reduce_values(values, reduction=self.reduction, normalizer=self._normalizer(ignored))

    def _in_parts(self, logits: Tensor) -> Made:
        """Return the loss of many logits, in little memory."""
        return softmax_in_parts(
            logits,
            Samples(self.labels, self.ignore_index, *self._of_samples(self.ignore_index)),
            term=self.term,
            adjustment=self.adjustment,
            divisor=as_divisor(self._normalizer(self.ignore_index)),
        )

    def _at_once(self, logits: Tensor) -> Made | None:
        """Return the loss of logits (N, C) by the operations that autograd would start.

        Returns:
            None where a label is no class: the composition ignores it or says that it is none.
        """
        labels, count = self.labels, len(logits)
        if 0 <= self.ignore_index < logits.shape[1]:
            return None
        first = classes_go_first(logits)
        dim = 0 if first else 1
        at = labels.unsqueeze(dim)
        try:
            adjusted = self.adjustment.of(logits, labels)
            log_p = torch.log_softmax(adjusted.t() if first else adjusted, dim)
            own = log_p.gather(dim, at)
        except (IndexError, RuntimeError):
            return None
        factor, power = self.factor, self.power
        values, slope = self.term.of(
            own.view(count).neg_(),
            None if factor is None else factor.index_select(0, labels),
            None if power is None else power.index_select(0, labels),
            self.size,
            with_slope=True,
        )
        assert slope is not None
        divisor = self._normalizer(None)
        value = reduce_values(values, reduction="mean", normalizer=divisor)
        slope = slope * (-1 / as_divisor(divisor))
        gradient = torch.zeros_like(log_p).scatter_(
            dim, at, slope.unsqueeze(dim) if isinstance(slope, Tensor) else slope
        )
        gradient = torch._log_softmax_backward_data(gradient, log_p, dim, log_p.dtype)
        gradient = gradient.t().contiguous() if first else gradient
        if self.adjustment.scale is not None:
            gradient *= self.adjustment.factor(gradient)
        return Made(value, gradient)

    def _of_samples(self, ignored: int | None) -> list[Tensor | None]:
        """Return factor, power and size of each sample; None ignores none."""
        return [
            None if found is None else class_values(found, self.labels, ignore_index=ignored)
            for found in (self.factor, self.power)
        ] + [self.size]

    def _normalizer(self, ignored: int | None) -> Tensor | int:
        """Return what the sum is divided by, 1 where it is not."""
        if self.reduction != "mean":
            return 1
        return sample_normalizer(
            self.labels, self.weight, normalize=self.normalize, ignore_index=ignored
        )
