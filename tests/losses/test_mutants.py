"""The suite tells right losses from wrong ones: which check kills which public bug."""

from __future__ import annotations

import re

import pytest
from torch import nn

from losses.conformance import CHECKS, Subject, examine
from losses.cross_entropy import CrossEntropy
from tests.losses import _mutants as m

# (mutant, the check that kills it, what the check says)
MUTANTS: list[tuple[type[nn.Module], str, str]] = [
    (m.FocalOfTheWeightedLikelihood, "doubled_weights", "the loss at doubled weights is"),
    (m.TenTimesFocal, "stated_limits", "against cross_entropy, is 19.7885, not 1.97885"),
    (m.NaivePowerFocal, "extreme_logits", "the gradient is not finite .* gamma=0.3"),
    (m.DetachedFocal, "gradcheck", "the gradient is not that of the loss"),
    (m.UnweightedFocal, "weight_of_the_true_class", "the loss of one sample of class 0"),
    (m.EpsilonInTheLog, "worst_mistakes", "the loss is .*, 11.5, 11.5 where"),
    (m.ClampedSigmoid, "worst_mistakes", "where the true class has logit -10, -30, -100"),
    (m.OverflowingSigmoidFocal, "worst_mistakes", "not finite where the true class has logit -100"),
    (m.AddsWhatItShouldSubtract, "fixed_point", "where the uniform prior is"),
    (m.PriorOfTheInverse, "fixed_point", "where the uniform prior is"),
    (m.CountsThatOverflow, "extreme_counts", "with counts of 0 and a million in torch.float16"),
    (m.PlainMean, "all_ignored", "the loss of ignored samples is nan"),
    (m.MeanOverIgnored, "ignoring_is_dropping", "is 1.12036, not 2.24071"),
    (m.SoftWithoutWeights, "one_hot_targets", "one-hot targets with class weights"),
    (m.BroadcastWeights, "slow_loop", "the loss is"),
    (m.ReversedWeights, "weight_of_the_true_class", "the loss of one sample of class 0"),
    (m.FirstClassIsBackground, "class_permutation", "the loss of renamed classes"),
    (m.OneForEachLabel, "absent_class", "not finite where all samples have class 0"),
    (m.MarginsStayBehind, "moving", "own does not follow"),
    (m.MarginOfTheWrongSign, "slow_loop", "the loss is"),
    (m.NotDetachedInfluence, "gradcheck", "no longer breaks it"),
    (m.HalfPrecisionSums, "half_precision", "give a loss in torch.float16"),
    (m.ForgetsTheWeightsOfParts, "sums_over_parts", "normalize=weights"),
    (m.ChangesLogits, "inputs_left_alone", "the logits are changed in place"),
    (m.ReadsAValue, "compiled", "data-dependent"),
    (m.KeepsItsWeight, "state", "does not load into a new one"),
    (m.LosesTheLastPart, "large_batch", "the gradient of a batch 8192 times over"),
    (m.ViewsItsLogits, "memory_layout", "the loss of transposed logits"),
    (m.BroadcastsTargets, "shapes_that_do_not_fit", "targets .6, 1. for .* are not an error"),
    (m.TakesAnyLabel, "wrong_labels", "label -1 of 4 classes is no IndexError"),
    (m.OneLogitForTwoClasses, "single_output", "softmax over a single output is .*, and no error"),
    (m.UniformAtEveryTau, "fixed_point", "lands on .* at tau=0.0, where the uniform prior is"),
    (m.MatrixProduct, "autocast", "the loss under autocast"),
    (m.DrawsNoise, "repeated_call", "the loss of the same batch again"),
    (m.ForgetsTheMinus, "descent", "makes the true classes less likely"),
    (m.TorchsSmoothing, "weight_of_the_true_class", "class 0 of weight 3 .* label_smoothing=0.3"),
    (m.MeanWeightOfMixtures, "weights_of_mixed_targets", "mixtures of two classes of weight 3"),
    (m.TensorsAlone, "array_likes", "AttributeError: 'list' object has no attribute 'float'"),
    (m.WeightsOfAnyLength, "wrong_lengths", "5 class weights for 4 classes are no ValueError"),
    (m.PredictsUnscaled, "confidence", "predicts a class of cosine 1 among others of -1 with 0.7"),
    (m.UnusedKey, "effective_keys", "label_smoothing changes nothing.*: state it in idle"),
    (m.IdleByMistake, "idle_keys", "smoothing_weight=class changes the loss at gamma=2.0"),
    (m.NoMeanAfterAll, "sums_over_parts", "states to be no mean over samples, but is one"),
    (m.OutdatedException, "empty_batch", "no longer breaks it"),
]


@pytest.mark.parametrize(
    ("mutant", "check", "reason"),
    MUTANTS,
    ids=[f"{mutant.__name__}-{check}" for mutant, check, _ in MUTANTS],
)
def test_a_mutant_is_killed_by_a_check_that_its_original_passes(
    mutant: type[nn.Module], check: str, reason: str
) -> None:
    right = next((b for b in mutant.__mro__ if b.__module__.startswith("losses.")), CrossEntropy)
    assert examine(Subject("right", right), CHECKS[check]).kind in {"pass", "exception"}
    outcome = examine(Subject("wrong", mutant), CHECKS[check])
    assert outcome.kind == "fail"
    assert re.search(reason, outcome.reason), outcome.reason


def test_every_mutant_is_tried() -> None:
    written = [v for v in vars(m).values() if getattr(v, "__module__", "") == m.__name__]
    assert {v for v in written if isinstance(v, type)} == {mutant for mutant, _, _ in MUTANTS}
