"""Wrong losses, most of them as public code has them, and the loss that each should have been."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses import Loss
from losses._base import FactsAt, FixedPoint, Idle
from losses._counts import log_prior
from losses._inputs import ClassValues
from losses.balanced_softmax import BalancedSoftmax
from losses.binary_cross_entropy import BinaryCrossEntropy
from losses.cross_entropy import CrossEntropy, cross_entropy_loss
from losses.influence_balanced import InfluenceBalanced
from losses.ldam import Ldam
from losses.logit_adjustment import LogitAdjustment
from losses.sigmoid_focal import SigmoidFocal
from losses.softmax_focal import SoftmaxFocal, softmax_focal_loss
from losses.tversky import Tversky


def mean(values: Tensor, targets: Tensor) -> Tensor:
    """The mean over valid samples, 0 for none."""
    return values.sum() / (targets != -100).sum().clamp_min(1)


def of_samples(loss: Loss, targets: Tensor) -> Tensor:
    """The weight of each sample."""
    valid = (targets != -100).float()
    return valid if loss.weight is None else valid * loss.weight[targets.clamp_min(0)]


class FocalOfTheWeightedLikelihood(SoftmaxFocal):
    """p = exp(-w ce), that is p^w (LDAM-DRW, IB-Loss and their children)."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        weight = None if self.weight is None else self.weight.to(logits)
        ce = F.cross_entropy(logits, targets, weight=weight, reduction="none")
        return mean((1 - torch.exp(-ce)) ** self.gamma * ce, targets)


class TenTimesFocal(SoftmaxFocal):
    """A factor of 10 (IB-Loss)."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        return 10 * super().forward(logits, targets)


class NaivePowerFocal(SoftmaxFocal):
    """(1 - p)^gamma by autograd: at p = 1 an infinite slope times 0 (twelve public packages)."""

    takes_soft_targets: ClassVar[bool] = False

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        log_p = -F.cross_entropy(logits.float(), targets, reduction="none")
        return mean(-((1 - log_p.exp()) ** self.gamma) * log_p * of_samples(self, targets), targets)


class DetachedFocal(SoftmaxFocal):
    """The modulator detached by mistake: the right value with another gradient."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        if targets.is_floating_point():
            return super().forward(logits, targets)
        ce = F.cross_entropy(logits, targets, reduction="none")
        values = (-torch.expm1(-ce)).detach() ** self.gamma * ce
        return mean(values * of_samples(self, targets), targets)


class EpsilonInTheLog(CrossEntropy):
    """log(p + 1e-5) (focal-loss-torch, unified-focal): no gradient for the worst mistakes."""

    takes_soft_targets: ClassVar[bool] = False

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        p = logits.softmax(1).gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1)
        return mean(-torch.log(p + 1e-5) * of_samples(self, targets), targets)


class ClampedSigmoid(BinaryCrossEntropy):
    """log(p.clamp(min=1e-8)) (timm's asymmetric loss): positives below -18.4 have no gradient."""

    takes_soft_targets: ClassVar[bool] = False

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        p = logits.float().sigmoid()
        positive = F.one_hot(targets, logits.shape[1])
        terms = torch.where(positive == 1, p, 1 - p).clamp(min=1e-8).log()
        return -terms.mean()


class OverflowingSigmoidFocal(SigmoidFocal):
    """exp(-g y z - g log(1 + exp(-z))) (the common class-balanced focal): 0 for the worst."""

    takes_soft_targets: ClassVar[bool] = False

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        y = F.one_hot(targets, logits.shape[1]).to(logits)
        bce = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
        g = self.gamma
        return (torch.exp(-g * y * logits - g * torch.log1p(torch.exp(-logits))) * bce).mean()


class AddsWhatItShouldSubtract(LogitAdjustment):
    """Logits minus the log prior (MONICA): learns the head even better."""

    def __init__(self, class_counts: Tensor, *, tau: float = 1.0) -> None:
        super().__init__(class_counts, tau=tau)
        self.offset.neg_()


class PriorOfTheInverse(BalancedSoftmax):
    """The prior of 1/n in the place of n: the same mistake, made in the counts."""

    def __init__(self, class_counts: Tensor) -> None:
        super().__init__(class_counts)
        self.log_prior = log_prior(1 / class_counts)


class CountsThatOverflow(BalancedSoftmax):
    """The logarithm of counts in the logits' own type: log 0, and counts above 65,504 in half."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        counts = self.log_prior.exp().to(logits) * 1_000_031
        return F.cross_entropy(logits + counts.log(), targets)


class PlainMean(CrossEntropy):
    """torch's own mean: over the sum of weights, and NaN over nothing."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        return F.cross_entropy(logits, targets, weight=self.weight)


class MeanOverIgnored(CrossEntropy):
    """``cross_entropy(reduction="none").mean()``: ignored samples count in the mean."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        weight = None if self.weight is None else self.weight.to(logits)
        return F.cross_entropy(logits, targets, weight=weight, reduction="none").mean()


class SoftWithoutWeights(CrossEntropy):
    """Class weights for labels only: mixup then trains another loss than no mixup."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        if targets.is_floating_point():
            return cross_entropy_loss(logits, targets)
        return super().forward(logits, targets)


class BroadcastWeights(CrossEntropy):
    """Weights (N,) times losses (N, 1): the mean weight times the mean loss (libauc)."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        ce = F.cross_entropy(logits, targets, reduction="none").unsqueeze(1)
        return (of_samples(self, targets) * ce).mean()


class ReversedWeights(CrossEntropy):
    """Weights in the order of the other end: alpha goes to the negatives (libauc)."""

    def set_weight(self, weight: ClassValues | None) -> None:
        super().set_weight(weight)
        self.weight = None if self.weight is None else self.weight.flip(0)


class FirstClassIsBackground(CrossEntropy):
    """Class 0 left out, as detection code does."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        kept = torch.where(targets == 0, -100, targets)
        return cross_entropy_loss(logits, kept, weight=self.weight)


class OneForEachLabel(SigmoidFocal):
    """Divides by the positives of the batch, which is nothing in a batch without any."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        rare = (targets == 3).sum()
        return super().forward(logits, targets) * len(targets) / (rare / rare)


class MarginsStayBehind(Ldam):
    """Margins in a plain attribute (three public copies of LDAM): they do not follow .to()."""

    def __init__(self, class_counts: Tensor, *, max_margin: float = 0.5, scale: float = 30) -> None:
        super().__init__(class_counts, max_margin=max_margin, scale=scale)
        own = self.own
        del self.own
        self.own = own


class MarginOfTheWrongSign(Ldam):
    """The margin makes its class easier, not harder."""

    def __init__(self, class_counts: Tensor, *, max_margin: float = 0.5, scale: float = 30) -> None:
        super().__init__(class_counts, max_margin=max_margin, scale=scale)
        self.own.neg_()


class NotDetachedInfluence(InfluenceBalanced):
    """The factor left in the graph (IB-Loss): features are paid for being large."""

    def __init__(self) -> None:
        super().__init__(detach=False)


class HalfPrecisionSums(Tversky):
    """Sums of pixels in the logits' own type: float16 ends at 65,504 (monai, smp)."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        p = logits.softmax(1)
        t = F.one_hot(targets, logits.shape[1]).to(p)
        both, rest = (p * t).sum(0), self.alpha * p * (1 - t) + self.beta * (1 - p) * t
        return (1 - (both + self.smooth) / (both + rest.sum(0) + self.smooth)).mean()


class ForgetsTheWeightsOfParts(CrossEntropy):
    """A `normalizer` that counts samples where the mean is over weights."""

    def normalizer(self, targets: Tensor, *, num_outputs: int) -> Tensor:
        return Loss.normalizer(self, targets, num_outputs=num_outputs)


class ChangesLogits(CrossEntropy):
    """Subtracts the maximum in place."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        with torch.no_grad():
            logits -= logits.amax(1, keepdim=True)
        return super().forward(logits, targets)


class ReadsAValue(CrossEntropy):
    """Reads a value of the batch: a host sync on a GPU and a graph break when compiled."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        if logits.abs().max().item() > 1e6:
            logits = logits / 2
        return super().forward(logits, targets)


class KeepsItsWeight(CrossEntropy):
    """Class weights in the state: one from after a deferred start does not load before it."""

    def set_weight(self, weight: ClassValues | None) -> None:
        super().set_weight(weight)
        self.register_buffer("weight", self.weight, persistent=True)


class LosesTheLastPart(CrossEntropy):
    """Large batches in parts, without what is left over after the last whole one."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        kept = max(len(logits) // 1000 * 1000, min(len(logits), 1000))
        return super().forward(logits[:kept], targets[:kept])


class ViewsItsLogits(CrossEntropy):
    """A `view` that reads pixels of channels-last or transposed logits in another order."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        flat = logits.as_strided(logits.shape, torch.empty(logits.shape).stride())
        return super().forward(flat, targets)


class BroadcastsTargets(SoftmaxFocal):
    """Soft targets of any shape that broadcasts, as most public code on one-hot targets."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        if not targets.is_floating_point():
            return super().forward(logits, targets)
        nll = -logits.log_softmax(dim=1)
        return (targets * (1 - torch.exp(-nll)) ** self.gamma * nll).sum(dim=1).mean()


class TakesAnyLabel(CrossEntropy):
    """A label out of range taken for the last class."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        if not targets.is_floating_point():
            targets = torch.where(targets == -100, -100, targets.clamp(0, logits.shape[1] - 1))
        return super().forward(logits, targets)


class OneLogitForTwoClasses(BalancedSoftmax):
    """One logit that broadcasts to the offsets of two classes: it has no gradient."""

    def _check_batch(self, logits: Tensor, targets: Tensor) -> None:
        pass


class UniformAtEveryTau(LogitAdjustment):
    """States for every key what holds at its default."""

    fixed_point: ClassVar[FixedPoint] = "uniform"
    facts_at: ClassVar[FactsAt] = ()


class MatrixProduct(CrossEntropy):
    """Soft targets and weights by a matrix product, which autocast runs in bfloat16."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        if not targets.is_floating_point() or self.weight is None:
            return super().forward(logits, targets)
        terms = -targets * logits.log_softmax(1)
        return (terms @ self.weight.to(terms)).mean()


class DrawsNoise(BalancedSoftmax):
    """Random offsets: the same batch gives another loss, and a resumed run another result."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        return super().forward(logits + 0.1 * torch.randn_like(logits), targets)


class ForgetsTheMinus(nn.Module):
    """The likelihood in the place of its negative, in a module that knows nothing of `Loss`."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return logits.log_softmax(1).gather(1, targets.unsqueeze(1)).mean()


class TorchsSmoothing(CrossEntropy):
    """The evenly spread part of class c weighed by w_c: every image asks for the rarest class."""

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy_loss(
            logits,
            targets,
            weight=self.weight,
            normalize=self.normalize,
            label_smoothing=self.label_smoothing,
            smoothing_weight="class",
        )


class MeanWeightOfMixtures(CrossEntropy):
    """Soft targets weighed by the mean weight of all classes."""

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        if not targets.is_floating_point() or self.weight is None:
            return super().batch_mean(logits, targets)
        return cross_entropy_loss(logits, targets) * self.weight.mean()


class TensorsAlone(BalancedSoftmax):
    """Counts by a tensor's methods."""

    def __init__(self, class_counts: Tensor) -> None:
        super().__init__(class_counts.float())


class WeightsOfAnyLength(CrossEntropy):
    """Weights beyond the last class, which no label reads."""

    def set_weight(self, weight: ClassValues | None) -> None:
        self.weight = None if weight is None else torch.as_tensor(weight)

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        kept = None if self.weight is None else self.weight[: logits.shape[1]]
        return cross_entropy_loss(logits, targets, weight=kept)


class PredictsUnscaled(Ldam):
    """Predictions without the scale of training: of cosines none is sure."""

    def predict(self, logits: Tensor) -> Tensor:
        return logits.softmax(1)


class UnusedKey(CrossEntropy):
    """A key that is kept and never read."""

    def batch_mean(self, logits: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy_loss(logits, targets, weight=self.weight, normalize=self.normalize)


class IdleByMistake(SoftmaxFocal):
    """Says that a key has no effect where it has."""

    idle: ClassVar[Idle] = (({"gamma": 2.0, "label_smoothing": 0.3}, ("smoothing_weight",)),)


class NoMeanAfterAll(CrossEntropy):
    """Says that it is no mean over samples."""

    is_mean_over_samples: ClassVar[bool] = False


class OutdatedException(CrossEntropy):
    """An exception for what is long repaired."""

    breaks: ClassVar[Mapping[str, str]] = {"empty_batch": "a mean over nothing is NaN"}


class UnweightedFocal(SoftmaxFocal):
    """Takes class weights and does not use them."""

    def forward(self, logits: Tensor, targets: Tensor, **extras: Any) -> Tensor:
        return softmax_focal_loss(logits, targets, gamma=self.gamma)
