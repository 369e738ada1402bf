"""Softmax equalization loss against a slow loop over its equations, its limits and its draws."""

import math

import pytest
import torch
from torch import Tensor

from losses.cross_entropy import cross_entropy_loss
from losses.equalization import Equalization, equalization_loss

COUNTS = [100, 40, 20, 5]  # 2.4, 0.97, 0.48, 0.12 of their mean


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(8, 4, generator=generator, dtype=torch.float64)
    return logits, torch.arange(8) % 4


@pytest.mark.parametrize("tail_share", [0.05, 0.4, 0.8, 4.0])
def test_it_follows_its_equations(tail_share: float) -> None:
    logits, targets = batch()
    expected = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        below = 0.0
        for c, x in enumerate(row):
            is_tail = COUNTS[c] / (sum(COUNTS) / 4) < tail_share
            below += (1 - is_tail * (c != target)) * math.exp(x)
        expected.append(-math.log(math.exp(row[target]) / below))
    found = equalization_loss(
        logits, targets, class_counts=COUNTS, tail_share=tail_share, reduction="none"
    )
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("keys", [{"chance": 0.0, "tail_share": 0.8}, {"tail_share": 0.0}])
def test_without_anything_to_spare_it_is_cross_entropy(keys: dict[str, float]) -> None:
    logits, targets = batch()
    found = equalization_loss(logits, targets, class_counts=COUNTS, **keys)  # type: ignore[arg-type]
    assert found == cross_entropy_loss(logits, targets)


def test_a_tail_class_is_pushed_down_by_no_sample_of_another_class() -> None:
    logits, targets = batch()
    logits.requires_grad_()
    equalization_loss(logits, targets, class_counts=COUNTS, tail_share=0.4).backward()
    assert logits.grad is not None
    assert not logits.grad[targets != 3, 3].any()
    assert logits.grad[targets == 3, 3].all()


def test_a_share_gamma_of_the_samples_spares_a_tail_class() -> None:
    torch.manual_seed(0)
    logits = torch.zeros(4000, 4, requires_grad=True)
    targets = torch.zeros(4000, dtype=torch.int64)
    keys = {"class_counts": COUNTS, "tail_share": 0.4, "chance": 0.9}
    equalization_loss(logits, targets, **keys).backward()  # type: ignore[arg-type]
    assert logits.grad is not None
    spared = (logits.grad[:, 3] == 0).double().mean().item()
    assert spared == pytest.approx(0.9, abs=0.02)
    assert logits.grad[:, :3].all()


def test_the_same_global_seed_draws_the_same() -> None:
    logits, targets = batch()
    loss = Equalization(torch.tensor(COUNTS), tail_share=0.8, chance=0.5)
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(loss(logits, targets).item())
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_class_without_images_takes_no_part(chance: float) -> None:
    logits, _ = batch()
    targets = torch.tensor([0, 2, 3, 0, 2, 3, 0, 2])
    logits.requires_grad_()
    loss = Equalization(torch.tensor([100, 0, 20, 5]), tail_share=0.4, chance=chance)
    value = loss(logits, targets)
    value.backward()
    assert logits.grad is not None
    assert not logits.grad[:, 1].any()
    without = equalization_loss(
        logits[:, [0, 2, 3]],
        (targets - 1).clamp_min(0),
        class_counts=[100, 20, 5],
        tail_share=0.4,
        chance=chance,
    )
    torch.testing.assert_close(value, without)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_value_and_gradient_are_finite_at_extreme_logits(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, 50.0, -50.0, 1e4, -1e4])
    logits = torch.cartesian_prod(values, values, values).to(dtype).requires_grad_()
    for target in (0, 2):
        targets = torch.full((len(logits),), target)
        found = equalization_loss(logits, targets, class_counts=[10**6, 0, 1])
        found.backward()
        assert torch.isfinite(found)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_component_passes_its_keys_and_its_weight_on() -> None:
    logits, targets = batch()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    loss = Equalization(torch.tensor(COUNTS), tail_share=0.8, normalize="weights")
    loss.set_weight(weight)
    expected = equalization_loss(
        logits,
        targets,
        class_counts=COUNTS,
        tail_share=0.8,
        weight=weight,
        normalize="weights",
    )
    assert loss(logits, targets) == expected


def test_gamma_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="chance must lie in 0 to 1"):
        equalization_loss(*batch(), class_counts=COUNTS, chance=1.5)
