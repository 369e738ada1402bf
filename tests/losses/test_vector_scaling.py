"""Vector-scaling loss against a slow loop over its equation, its limits and its fixed point."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from losses.cross_entropy import cross_entropy_loss
from losses.logit_adjustment import logit_adjustment_loss
from losses.vector_scaling import VectorScaling, vector_scaling_loss

COUNTS = [100, 40, 20, 5]


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    return logits, torch.randint(4, (6,), generator=generator)


def slow(logits: Tensor, targets: Tensor, *, gamma: float, tau: float) -> list[float]:
    """-log(e^(D_y x_y + i_y) / sum_c e^(D_c x_c + i_c)) of each sample, in plain Python."""
    factors = [(n / max(COUNTS)) ** gamma for n in COUNTS]
    iota = [tau * math.log(n / sum(COUNTS)) for n in COUNTS]
    values = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        masses = [math.exp(d * x + i) for d, x, i in zip(factors, row, iota, strict=True)]
        values.append(-math.log(masses[target] / sum(masses)))
    return values


@given(gamma=st.floats(0, 2), tau=st.floats(0, 3))
def test_it_follows_its_equation(gamma: float, tau: float) -> None:
    logits, targets = batch()
    found = vector_scaling_loss(
        logits, targets, class_counts=COUNTS, gamma=gamma, tau=tau, reduction="none"
    )
    assert found.tolist() == pytest.approx(slow(logits, targets, gamma=gamma, tau=tau))


@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0])
def test_without_factors_it_is_logit_adjustment(tau: float) -> None:
    logits, targets = batch()
    found = vector_scaling_loss(logits, targets, class_counts=COUNTS, gamma=0, tau=tau)
    assert found == logit_adjustment_loss(logits, targets, class_counts=COUNTS, tau=tau)


def test_without_either_it_is_cross_entropy() -> None:
    logits, targets = batch()
    found = vector_scaling_loss(logits, targets, class_counts=COUNTS, gamma=0, tau=0)
    assert found == cross_entropy_loss(logits, targets)


def test_with_factors_alone_it_has_class_dependent_temperatures() -> None:
    """Ye et al. 2020 divide the logit of class c by (n_max / n_c)^gamma."""
    logits, targets = batch()
    temperatures = torch.tensor([(100 / n) ** 0.3 for n in COUNTS], dtype=torch.float64)
    found = vector_scaling_loss(logits, targets, class_counts=COUNTS, gamma=0.3, tau=0)
    expected = cross_entropy_loss(logits / temperatures, targets)
    assert found.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_a_model_of_class_scores_alone_learns_scaled_scores_of_a_balanced_test_set(
    tau: float,
) -> None:
    """At its fixed point factor_c x_c is (1 - tau) log prior_c, but for a constant."""
    targets = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
    scores = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=300, tolerance_grad=1e-12)

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = scores.expand(len(targets), 4)
        loss = vector_scaling_loss(logits, targets, class_counts=COUNTS, gamma=0.3, tau=tau)
        loss.backward()
        return loss

    optimizer.step(closure)
    factors = VectorScaling(torch.tensor(COUNTS)).factors
    found = (factors * scores.detach()).softmax(0)
    expected = ((1 - tau) * torch.tensor(COUNTS, dtype=torch.float64).log()).softmax(0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.5, 1.0, 2.0, 5.0])
def test_value_and_gradient_are_finite_at_extreme_logits(gamma: float, dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, 50.0, -50.0, 1e4, -1e4])
    logits = torch.cartesian_prod(values, values, values).to(dtype).requires_grad_()
    for target in range(3):
        targets = torch.full((len(logits),), target)
        found = vector_scaling_loss(logits, targets, class_counts=[10**6, 0, 1], gamma=gamma)
        found.backward()
        assert torch.isfinite(found)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_class_without_images_takes_no_part() -> None:
    logits, _ = batch()
    targets = torch.tensor([0, 2, 3, 0, 2, 3])
    logits.requires_grad_()
    value = VectorScaling(torch.tensor([100, 0, 20, 5]), tau=0.0)(logits, targets)
    value.backward()
    assert logits.grad is not None
    assert not logits.grad[:, 1].any()
    without = vector_scaling_loss(
        logits[:, [0, 2, 3]],
        torch.tensor([0, 1, 2, 0, 1, 2]),
        class_counts=[100, 20, 5],
        tau=0,
    )
    torch.testing.assert_close(value, without)


def test_derivatives_are_right_also_of_soft_targets() -> None:
    logits, targets = batch()
    soft = batch()[0].softmax(1)

    def both(x: Tensor) -> Tensor:
        hard = vector_scaling_loss(x, targets, class_counts=COUNTS)
        return hard + vector_scaling_loss(x, soft, class_counts=COUNTS)

    logits.requires_grad_()
    assert torch.autograd.gradcheck(both, logits)
    assert torch.autograd.gradgradcheck(both, logits)


def test_the_component_passes_its_keys_and_its_weight_on() -> None:
    logits, targets = batch()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    loss = VectorScaling(torch.tensor(COUNTS), gamma=0.4, tau=1.2, normalize="weights")
    loss.set_weight(weight)
    expected = vector_scaling_loss(
        logits,
        targets,
        class_counts=COUNTS,
        gamma=0.4,
        tau=1.2,
        weight=weight,
        normalize="weights",
    )
    assert loss(logits, targets) == expected
