"""Poly-1 loss against a slow loop, timm's and the losses it extends."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.loss import PolyCrossEntropy
from torch import Tensor

from losses.cross_entropy import cross_entropy_loss
from losses.poly import Poly, poly_loss
from losses.softmax_focal import softmax_focal_loss

GAMMAS = [0.0, 0.3, 0.5, 1.0, 2.0, 5.0]
WEIGHT = torch.tensor([1, 2, 3, 4], dtype=torch.float64)


def batch(seed: int = 0, size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return logits, torch.randint(4, (size,), generator=generator)


@given(
    epsilon=st.floats(-1, 5),
    gamma=st.sampled_from(GAMMAS),
    soft=st.booleans(),
)
def test_it_follows_its_equation(epsilon: float, gamma: float, soft: bool) -> None:  # noqa: FBT001
    logits, labels = batch()
    one_hot = torch.nn.functional.one_hot(labels, 4).double()
    targets = batch(1)[0].softmax(1) if soft else one_hot
    expected = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        total = sum(math.exp(x) for x in row)
        p = [math.exp(x) / total for x in row]
        terms = zip(target, WEIGHT.tolist(), p, strict=True)
        expected.append(
            sum(
                t * w * (-((1 - q) ** gamma) * math.log(q) + epsilon * (1 - q) ** (gamma + 1))
                for t, w, q in terms
            )
        )
    found = poly_loss(
        logits,
        targets if soft else labels,
        epsilon=epsilon,
        gamma=gamma,
        weight=WEIGHT,
        reduction="none",
    )
    assert found.tolist() == pytest.approx(expected)


@given(epsilon=st.floats(-1, 5), seed=st.integers(0, 1000))
def test_it_is_timms(epsilon: float, seed: int) -> None:
    logits, labels = batch(seed)
    soft = batch(seed + 1)[0].softmax(1)
    for targets in (labels, soft):
        ours, theirs = (logits.float().requires_grad_() for _ in range(2))
        value = poly_loss(ours, targets, epsilon=epsilon)
        expected = PolyCrossEntropy(epsilon=epsilon)(theirs, targets)
        value.backward()
        expected.backward()
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_without_epsilon_it_is_the_focal_loss(gamma: float) -> None:
    logits, targets = batch()
    found = poly_loss(logits, targets, epsilon=0, gamma=gamma, weight=WEIGHT)
    expected = softmax_focal_loss(logits, targets, gamma=gamma, weight=WEIGHT)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    if gamma == 0:
        assert found == cross_entropy_loss(logits, targets, weight=WEIGHT)


def test_epsilon_of_minus_1_takes_the_first_term_of_the_expansion_away() -> None:
    logits, targets = torch.tensor([[4.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    miss = 1 - 1 / (1 + math.exp(-4))
    rest = sum(miss**j / j for j in range(2, 60))
    assert poly_loss(logits, targets, epsilon=-1).item() == pytest.approx(rest, rel=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("soft", [False, True])
def test_value_and_gradient_are_finite_at_extreme_logits(
    gamma: float, dtype: torch.dtype, *, soft: bool
) -> None:
    values = torch.tensor([0.0, 8.0, -8.0, 50.0, -50.0, 1e4, -1e4])
    logits = torch.cartesian_prod(values, values).to(dtype).requires_grad_()
    labels = torch.zeros(len(logits), dtype=torch.int64)
    targets = torch.nn.functional.one_hot(labels, 2).float() if soft else labels
    found = poly_loss(logits, targets, gamma=gamma, reduction="none")
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_derivatives_are_right() -> None:
    logits, targets = batch()
    soft = batch(1)[0].softmax(1)

    def both(x: Tensor) -> Tensor:
        return poly_loss(x, targets, gamma=0.5) + poly_loss(x, soft, epsilon=-1, weight=WEIGHT)

    logits.requires_grad_()
    assert torch.autograd.gradcheck(both, logits)
    assert torch.autograd.gradgradcheck(both, logits)


def test_the_component_passes_its_keys_and_its_weight_on() -> None:
    logits, targets = batch()
    loss = Poly(epsilon=0.4, gamma=1.2, normalize="weights")
    loss.set_weight(WEIGHT)
    expected = poly_loss(
        logits, targets, epsilon=0.4, gamma=1.2, weight=WEIGHT, normalize="weights"
    )
    assert loss(logits, targets) == expected


@pytest.mark.parametrize("keys", [{"epsilon": -1.1}, {"epsilon": math.nan}, {"gamma": -1.0}])
def test_what_would_reward_mistakes_is_refused(keys: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        poly_loss(*batch(), **keys)  # type: ignore[arg-type]
