"""Gaussian clouded logits against a slow loop over the same draws, and its limits."""

import math

import pytest
import torch
from torch import Tensor

from losses.cross_entropy import cross_entropy_loss
from losses.gaussian_clouded import GaussianClouded, gaussian_clouded_loss

COUNTS = [100, 40, 20, 5]


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.rand(8, 4, generator=generator, dtype=torch.float64) - 1
    return logits, torch.arange(8) % 4


@pytest.mark.parametrize("soft", [False, True])
def test_it_follows_its_formula_on_the_same_draws(*, soft: bool) -> None:
    logits, labels = batch()
    one_hot = torch.nn.functional.one_hot(labels, 4).double()
    targets = batch()[0].softmax(1) if soft else one_hot
    torch.manual_seed(3)
    found = gaussian_clouded_loss(
        logits, targets if soft else labels, class_counts=COUNTS, scale=5, reduction="none"
    )
    torch.manual_seed(3)
    draws = torch.randn(8, 4, dtype=torch.float64).tolist()
    expected = []
    for row, target, drawn in zip(logits.tolist(), targets.tolist(), draws, strict=True):
        clouded = []
        for x, n, e in zip(row, COUNTS, drawn, strict=True):
            cloud = (math.log(100) - math.log(n)) / (math.log(100) - math.log(5))
            clouded.append(5 * (x - 0.5 * cloud * min(abs(e / 3), 1)))
        total = sum(math.exp(x) for x in clouded)
        expected.append(
            -sum(t * math.log(math.exp(x) / total) for t, x in zip(target, clouded, strict=True))
        )
    assert found.tolist() == pytest.approx(expected)


def test_without_noise_it_is_cross_entropy_of_scaled_logits() -> None:
    logits, targets = batch()
    found = gaussian_clouded_loss(logits, targets, class_counts=COUNTS, noise=0)
    assert found == cross_entropy_loss(30 * logits, targets)


def test_noise_raises_the_loss_of_rare_classes_alone() -> None:
    logits = torch.zeros(4000, 2, dtype=torch.float64)
    keys = {"class_counts": [10, 1], "scale": 4.0}
    plain = math.log(2)
    torch.manual_seed(0)
    for label, sign in ((0, -1), (1, 1)):
        targets = torch.full((4000,), label)
        found = gaussian_clouded_loss(logits, targets, **keys)  # type: ignore[arg-type]
        assert sign * (found.item() - plain) > 0.1


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([7, 7, 7], [0, 0, 0]), ([100, 0, 10, 1], [0, 1, 0.5, 1]), ([5, 0], [0, 0])],
    ids=["balanced", "a class without images", "a single class"],
)
def test_clouds_at_the_edges(counts: list[int], expected: list[float]) -> None:
    assert GaussianClouded(torch.tensor(counts)).clouds.tolist() == pytest.approx(expected)


def test_it_predicts_without_noise() -> None:
    logits, _ = batch()
    loss = GaussianClouded(torch.tensor(COUNTS), scale=4)
    torch.testing.assert_close(loss.predict(logits), (4 * logits).softmax(1))


def test_the_same_global_seed_draws_the_same() -> None:
    logits, targets = batch()
    loss = GaussianClouded(torch.tensor(COUNTS))
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(loss(logits, targets).item())
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_value_and_gradient_are_finite_at_extreme_logits(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, 50.0, -50.0, 1e4, -1e4])
    logits = torch.cartesian_prod(values, values, values).to(dtype).requires_grad_()
    for target in range(3):
        targets = torch.full((len(logits),), target)
        found = gaussian_clouded_loss(logits, targets, class_counts=[10**6, 0, 1])
        found.backward()
        assert torch.isfinite(found)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_component_passes_its_keys_and_its_weight_on() -> None:
    logits, targets = batch()
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    keys = {"noise": 0.3, "scale": 7.0, "normalize": "weights"}
    loss = GaussianClouded(torch.tensor(COUNTS), **keys)  # type: ignore[arg-type]
    loss.set_weight(weight)
    torch.manual_seed(5)
    found = loss(logits, targets)
    torch.manual_seed(5)
    expected = gaussian_clouded_loss(logits, targets, class_counts=COUNTS, weight=weight, **keys)  # type: ignore[arg-type]
    assert found == expected
