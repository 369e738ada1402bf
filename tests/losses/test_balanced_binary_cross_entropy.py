"""Balanced binary cross-entropy against a slow loop, its limit and its fixed point."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from losses.balanced_binary_cross_entropy import (
    BalancedBinaryCrossEntropy,
    balanced_binary_cross_entropy_loss,
)
from losses.binary_cross_entropy import binary_cross_entropy_loss

COUNTS = [100, 40, 20, 5]


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    return logits, torch.randint(4, (6,), generator=generator)


@given(tau=st.floats(0, 3))
def test_it_follows_its_equation(tau: float) -> None:
    logits, targets = batch()
    expected = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        for c, (x, n) in enumerate(zip(row, COUNTS, strict=True)):
            prior = n / sum(COUNTS)
            p = 1 / (1 + math.exp(-(x + tau * (math.log(prior) - math.log(1 - prior)))))
            expected.append(-math.log(p if c == target else 1 - p))
    found = balanced_binary_cross_entropy_loss(
        logits, targets, class_counts=COUNTS, tau=tau, reduction="none"
    )
    assert found.flatten().tolist() == pytest.approx(expected)


def test_at_tau_0_it_is_binary_cross_entropy() -> None:
    logits, targets = batch()
    found = balanced_binary_cross_entropy_loss(logits, targets, class_counts=COUNTS, tau=0)
    assert found == binary_cross_entropy_loss(logits, targets)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_a_model_of_class_scores_alone_learns_what_the_adjustment_leaves(tau: float) -> None:
    """Its fixed point is (1 - tau) times the logit of the prior: at tau = 1 no preference."""
    targets = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
    scores = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=200, tolerance_grad=1e-12)

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = scores.expand(len(targets), 4)
        loss = balanced_binary_cross_entropy_loss(logits, targets, class_counts=COUNTS, tau=tau)
        loss.backward()
        return loss

    optimizer.step(closure)
    prior = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    torch.testing.assert_close(scores.detach(), (1 - tau) * prior.logit(), atol=1e-4, rtol=0)


def test_one_output_is_adjusted_by_the_share_of_class_1() -> None:
    logits, targets = torch.tensor([[0.3], [-1.0]]), torch.tensor([1, 0])
    found = balanced_binary_cross_entropy_loss(logits, targets, class_counts=[90, 10])
    expected = binary_cross_entropy_loss(logits + math.log(10 / 90), targets)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_a_class_without_images_costs_nothing(tau: float) -> None:
    logits, _ = batch()
    targets = torch.tensor([0, 2, 3, 0, 2, 3])
    logits.requires_grad_()
    loss = BalancedBinaryCrossEntropy(torch.tensor([100, 0, 20, 5]), tau=tau, normalize="batch")
    value = loss(logits, targets)
    value.backward()
    assert logits.grad is not None
    assert not logits.grad[:, 1].any()
    without = balanced_binary_cross_entropy_loss(
        logits[:, [0, 2, 3]],
        torch.tensor([0, 1, 2, 0, 1, 2]),
        class_counts=[100, 20, 5],
        tau=tau,
        normalize="batch",
    )
    torch.testing.assert_close(value, without)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("counts", [[10**6, 0, 1], [3, 0, 0]])
def test_value_and_gradient_are_finite_at_extreme_logits(
    counts: list[int], dtype: torch.dtype
) -> None:
    values = torch.tensor([0.0, 50.0, -50.0, 1e4, -1e4])
    logits = torch.cartesian_prod(values, values, values).to(dtype).requires_grad_()
    targets = torch.zeros(len(logits), dtype=torch.int64)
    found = balanced_binary_cross_entropy_loss(logits, targets, class_counts=counts)
    found.backward()
    assert torch.isfinite(found)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_component_passes_its_keys_and_its_weight_on() -> None:
    logits, targets = batch()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    loss = BalancedBinaryCrossEntropy(torch.tensor(COUNTS), tau=0.7, normalize="positives")
    loss.set_weight(weight)
    expected = balanced_binary_cross_entropy_loss(
        logits, targets, class_counts=COUNTS, tau=0.7, weight=weight, normalize="positives"
    )
    assert loss(logits, targets) == expected


@pytest.mark.parametrize("counts", [[5, 0, 0], [0, 5, 0]])
def test_at_tau_0_the_only_class_with_images_has_no_offset(counts: list[int]) -> None:
    label = counts.index(5)
    loss = BalancedBinaryCrossEntropy(torch.tensor(counts), tau=0.0)
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    found = loss(logits, torch.tensor([label]))
    assert found.item() == pytest.approx(math.log1p(math.exp(-logits[0, label].item())) / 3)
