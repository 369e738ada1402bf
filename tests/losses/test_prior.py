"""Losses that know the class counts: balanced softmax, logit adjustment, LDAM."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from losses._counts import log_prior
from losses.balanced_softmax import BalancedSoftmax, balanced_softmax_loss
from losses.cross_entropy import cross_entropy_loss
from losses.ldam import Ldam, ldam_loss
from losses.logit_adjustment import LogitAdjustment, logit_adjustment_loss

COUNTS = [100, 40, 20, 5]


def batch(size: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return logits, torch.randint(4, (size,), generator=generator)


# --- balanced softmax, logit adjustment -----------------------------------------------------------


def test_balanced_softmax_is_a_softmax_that_counts_classes() -> None:
    logits, targets = batch()
    expected = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        masses = [n * math.exp(x) for n, x in zip(COUNTS, row, strict=True)]
        expected.append(-math.log(masses[target] / sum(masses)))
    found = balanced_softmax_loss(logits, targets, class_counts=COUNTS, reduction="none")
    assert found.tolist() == pytest.approx(expected)


@given(st.floats(0, 3))
def test_logit_adjustment_is_a_softmax_that_counts_classes_to_the_tau(tau: float) -> None:
    logits, targets = batch()
    expected = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        masses = [(n / 165) ** tau * math.exp(x) for n, x in zip(COUNTS, row, strict=True)]
        expected.append(-math.log(masses[target] / sum(masses)))
    found = logit_adjustment_loss(logits, targets, class_counts=COUNTS, tau=tau, reduction="none")
    assert found.tolist() == pytest.approx(expected)


def test_tau_0_is_cross_entropy_and_tau_1_balanced_softmax() -> None:
    logits, targets = batch()
    at = {t: logit_adjustment_loss(logits, targets, class_counts=COUNTS, tau=t) for t in (0, 1)}
    assert at[0].item() == pytest.approx(cross_entropy_loss(logits, targets).item())
    assert at[1] == balanced_softmax_loss(logits, targets, class_counts=COUNTS)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_a_model_of_class_scores_alone_learns_the_posterior_of_a_balanced_test_set(
    tau: float,
) -> None:
    """Its fixed point is the empirical prior to the power 1 - tau: at tau = 1 no preference."""
    targets = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
    scores = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=200, tolerance_grad=1e-12)

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = scores.expand(len(targets), 4)
        loss = logit_adjustment_loss(logits, targets, class_counts=COUNTS, tau=tau)
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = ((1 - tau) * torch.tensor(COUNTS, dtype=torch.float64).log()).softmax(0)
    torch.testing.assert_close(scores.detach().softmax(0), expected, atol=1e-5, rtol=0)


LOSSES = [
    BalancedSoftmax(torch.tensor([100, 0, 20, 5])),
    LogitAdjustment(torch.tensor([100, 0, 20, 5]), tau=1.5),
    LogitAdjustment(torch.tensor([100, 0, 20, 5]), tau=0.0),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_class_without_images_takes_no_part(loss: BalancedSoftmax | LogitAdjustment) -> None:
    logits, _ = batch()
    targets = torch.tensor([0, 2, 3, 0, 2, 3])
    given = logits.clone().requires_grad_()
    value = loss(given, targets)
    value.backward()
    assert given.grad is not None
    assert not given.grad[:, 1].any()
    kept = [0, 2, 3]
    tau = getattr(loss, "offset", log_prior([100, 0, 20, 5]))[0] / log_prior([100, 0, 20, 5])[0]
    without = logit_adjustment_loss(
        logits[:, kept], torch.tensor([0, 1, 2, 0, 1, 2]), class_counts=[100, 20, 5], tau=float(tau)
    )
    torch.testing.assert_close(value, without)
    one_hot = torch.nn.functional.one_hot(targets, 4).double()
    torch.testing.assert_close(loss(logits, one_hot), value)


@pytest.mark.parametrize("loss", [*LOSSES, Ldam(torch.tensor([100, 0, 20, 5]))])
def test_a_sample_of_a_class_without_images_is_an_error(loss: BalancedSoftmax) -> None:
    logits, _ = batch()
    with pytest.raises(ValueError, match="class 1, which has no training images"):
        loss(logits, torch.ones(6, dtype=torch.int64))
    loss.set_weight(None)
    with pytest.raises(ValueError, match="class 1, which has no training images"):
        loss(logits, torch.ones(6, dtype=torch.int64))


@pytest.mark.parametrize("counts", [[0, 0], [-1, 2], [float("nan"), 1], [[1, 2]]])
def test_counts_that_are_no_counts_are_refused(counts: list[float]) -> None:
    for loss in (balanced_softmax_loss, logit_adjustment_loss, ldam_loss):
        with pytest.raises(ValueError, match="class_counts"):
            loss(torch.zeros(1, 2), torch.tensor([0]), class_counts=torch.tensor(counts))


def test_counts_of_a_million_in_half_precision_are_finite() -> None:
    logits = torch.zeros(2, 2, dtype=torch.float16)
    found = balanced_softmax_loss(logits, torch.tensor([0, 1]), class_counts=[10**6, 1])
    assert found.item() == pytest.approx((math.log1p(1e-6) + math.log(1e6 + 1)) / 2, rel=1e-5)


# --- LDAM -----------------------------------------------------------------------------------------


def test_ldam_is_cross_entropy_with_a_margin_by_the_fourth_root() -> None:
    logits, targets = batch()
    margins = [0.4 * (5 / n) ** 0.25 for n in COUNTS]
    expected = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        scaled = [3 * (x - margins[target] * (c == target)) for c, x in enumerate(row)]
        largest = max(scaled)
        total = math.log(sum(math.exp(x - largest) for x in scaled)) + largest
        expected.append(total - scaled[target])
    found = ldam_loss(
        logits, targets, class_counts=COUNTS, max_margin=0.4, scale=3, reduction="none"
    )
    assert found.tolist() == pytest.approx(expected)


def test_ldam_without_margin_is_cross_entropy_of_scaled_logits() -> None:
    logits, targets = batch()
    found = ldam_loss(logits, targets, class_counts=COUNTS, max_margin=0)
    assert found.item() == pytest.approx(cross_entropy_loss(30 * logits, targets).item())


def test_margins_of_ldam_skip_a_class_without_images() -> None:
    margins = Ldam(torch.tensor([16, 0, 1]), scale=1).own.neg()
    assert margins.tolist() == pytest.approx([0.25, 0, 0.5])


def test_ldam_predicts_with_its_scale_and_without_margins() -> None:
    logits, _ = batch()
    loss = Ldam(torch.tensor(COUNTS), scale=4)
    torch.testing.assert_close(loss.predict(logits), (4 * logits).softmax(1))


def test_ldam_leaves_the_logits_it_is_given_alone() -> None:
    logits, targets = batch()
    before = logits.clone()
    ldam_loss(logits, targets, class_counts=COUNTS, scale=1)
    assert torch.equal(logits, before)
