"""Seesaw loss against a slow loop over its equations, its limits and the public implementation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from losses.cross_entropy import cross_entropy_loss
from losses.seesaw import Seesaw, seesaw_loss

COUNTS = [100, 40, 20, 5]


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(8, 4, generator=generator, dtype=torch.float64)
    return logits, torch.arange(8) % 4


def slow(logits: Tensor, targets: Tensor, *, p: float, q: float, eps: float) -> list[float]:
    """Products of factors by their cases, in plain Python."""
    values = []
    for row, i in zip(logits.tolist(), targets.tolist(), strict=True):
        total = sum(math.exp(z) for z in row)
        sigma = [math.exp(z) / total for z in row]
        below = math.exp(row[i])
        for j in range(4):
            if j == i:
                continue
            mitigation = 1.0 if COUNTS[i] <= COUNTS[j] else (COUNTS[j] / COUNTS[i]) ** p
            ratio = sigma[j] / max(sigma[i], eps)
            compensation = 1.0 if ratio <= 1 else ratio**q
            below += mitigation * compensation * math.exp(row[j])
        values.append(-math.log(math.exp(row[i]) / below))
    return values


@given(p=st.floats(0, 2), q=st.floats(0, 4), eps=st.sampled_from([0.0, 0.01, 0.3]))
def test_it_follows_its_equations(p: float, q: float, eps: float) -> None:
    logits, targets = batch()
    found = seesaw_loss(logits, targets, class_counts=COUNTS, p=p, q=q, eps=eps, reduction="none")
    assert found.tolist() == pytest.approx(slow(logits, targets, p=p, q=q, eps=eps))


def test_without_either_factor_it_is_cross_entropy() -> None:
    logits, targets = batch()
    found = seesaw_loss(logits, targets, class_counts=COUNTS, p=0, q=0)
    assert found == cross_entropy_loss(logits, targets)


def test_a_least_probability_of_1_leaves_no_compensation() -> None:
    logits, targets = batch()
    found = seesaw_loss(logits, targets, class_counts=COUNTS, eps=1)
    assert found == seesaw_loss(logits, targets, class_counts=COUNTS, q=0)


def test_the_compensation_is_a_constant_to_the_gradient() -> None:
    """So the gradient is softmax(x + log S) - onehot, with the factors of this very point."""
    logits, targets = batch()
    given = logits.clone().requires_grad_()
    seesaw_loss(given, targets, class_counts=COUNTS, reduction="sum").backward()
    own = logits.gather(1, targets[:, None])
    counts = torch.tensor(COUNTS, dtype=torch.float64).log()
    factors = 0.8 * (counts - counts[targets][:, None]).clamp_max(0) + 2 * (logits - own).clamp_min(
        0
    )
    one_hot = torch.nn.functional.one_hot(targets, 4)
    torch.testing.assert_close(given.grad, (logits + factors).softmax(1) - one_hot)


def test_samples_of_the_head_punish_the_tail_less_and_not_the_other_way_round() -> None:
    logits = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    seesaw_loss(logits, torch.tensor([0, 3]), class_counts=COUNTS, reduction="sum").backward()
    assert logits.grad is not None
    head, tail = logits.grad
    assert head[1] > head[2] > head[3] > 0
    assert tail[0] == tail[1] == tail[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("q", [0.0, 0.3, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("eps", [0.0, 0.01])
def test_value_and_gradient_are_finite_at_extreme_logits(
    q: float, eps: float, dtype: torch.dtype
) -> None:
    values = torch.tensor([0.0, 50.0, -50.0, 1e4, -1e4])
    logits = torch.cartesian_prod(values, values, values).to(dtype).requires_grad_()
    for target in (0, 2):
        targets = torch.full((len(logits),), target)
        found = seesaw_loss(logits, targets, class_counts=[10**6, 0, 1], q=q, eps=eps)
        found.backward()
        assert torch.isfinite(found)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("p", [0.0, 0.8])
def test_a_class_without_images_takes_no_part(p: float) -> None:
    logits, _ = batch()
    targets = torch.tensor([0, 2, 3, 0, 2, 3, 0, 2])
    logits.requires_grad_()
    value = Seesaw(torch.tensor([100, 0, 20, 5]), p=p, eps=0.3)(logits, targets)
    value.backward()
    assert logits.grad is not None
    assert not logits.grad[:, 1].any()
    without = seesaw_loss(
        logits[:, [0, 2, 3]], (targets - 1).clamp_min(0), class_counts=[100, 20, 5], p=p, eps=0.3
    )
    torch.testing.assert_close(value, without)


def test_it_keeps_no_state_so_that_a_run_resumes_bit_for_bit() -> None:
    logits, targets = batch()
    loss = Seesaw(torch.tensor(COUNTS))
    first = loss(logits, targets)
    loss(logits.flip(1), targets)
    assert loss(logits, targets) == first
    assert loss.state_dict() == {}


def test_the_component_passes_its_keys_and_its_weight_on() -> None:
    logits, targets = batch()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    loss = Seesaw(torch.tensor(COUNTS), p=0.4, q=1.2, eps=0.1, normalize="weights")
    loss.set_weight(weight)
    expected = seesaw_loss(
        logits,
        targets,
        class_counts=COUNTS,
        p=0.4,
        q=1.2,
        eps=0.1,
        weight=weight,
        normalize="weights",
    )
    assert loss(logits, targets) == expected
