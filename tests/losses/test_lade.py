"""LADE against a slow loop over its equation, its limit, and the optimum that it promises."""

import math

import pytest
import torch
from torch import Tensor

from losses.balanced_softmax import balanced_softmax_loss
from losses.lade import Lade, lade_loss

COUNTS = [100, 40, 20, 5]


def batch(size: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(size, 4, generator=generator, dtype=torch.float64)
    return logits, torch.arange(size) % 3  # class 3 is absent


@pytest.mark.parametrize("value", [-math.inf, -1e4, 1e4])
def test_what_the_logit_of_a_class_without_images_is_changes_nothing(value: float) -> None:
    logits, targets = batch()
    logits[:, 3] = 0.0
    found = []
    for own in (0.0, value):
        given = logits.clone()
        given[:, 3] = own
        given.requires_grad_()
        loss = lade_loss(given, targets, class_counts=[100, 40, 20, 0])
        found.append((loss.detach(), *torch.autograd.grad(loss, given)))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("alpha", [0.1, 1.0])
@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_it_follows_its_equation(alpha: float, penalty: float) -> None:
    logits, targets = batch()
    rows, labels = logits.tolist(), targets.tolist()
    prior = [n / sum(COUNTS) for n in COUNTS]
    total = 0.0
    for row, y in zip(rows, labels, strict=True):
        masses = [q * math.exp(x) for q, x in zip(prior, row, strict=True)]
        total -= math.log(masses[y] / sum(masses)) / len(rows)
    for c in range(4):
        own = [row[c] for row, y in zip(rows, labels, strict=True) if y == c]
        balanced = [math.exp(row[c]) / (4 * prior[y]) for row, y in zip(rows, labels, strict=True)]
        d = math.log(sum(balanced) / len(rows))
        mean = sum(own) / len(own) if own else 0.0
        total += alpha * prior[c] * (-mean + d + penalty * d**2)
    found = lade_loss(logits, targets, class_counts=COUNTS, alpha=alpha, penalty=penalty)
    assert found.item() == pytest.approx(total)


def test_without_alpha_it_is_the_balanced_softmax() -> None:
    logits, targets = batch()
    found = lade_loss(logits, targets, class_counts=COUNTS, alpha=0)
    assert found == balanced_softmax_loss(logits, targets, class_counts=COUNTS)


def test_the_regulariser_ends_at_the_log_ratio_of_an_image_in_its_class_and_in_a_balanced_set() -> (
    None
):
    """Four images, two classes of 6 and 2 samples; alpha so large that only R_c matters."""
    samples = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])
    labels = torch.tensor([0, 0, 0, 0, 1, 0, 1, 0])
    scores = torch.zeros(4, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [scores], max_iter=100, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = lade_loss(scores[samples], labels, class_counts=[6, 2], alpha=1e6)
        loss.backward()
        return loss

    optimizer.step(closure)
    given = torch.tensor([[3 / 6, 0], [1 / 6, 1 / 2], [1 / 6, 1 / 2], [1 / 6, 0]])
    expected = (given / given.mean(dim=1, keepdim=True)).double()
    # Image 1 and 2 hold both classes, so that their scores are finite for both.
    torch.testing.assert_close(scores.detach().exp()[1:3], expected[1:3], atol=0.02, rtol=0)
    torch.testing.assert_close(
        scores.detach().exp()[[0, 3], 0], expected[[0, 3], 0], atol=0.02, rtol=0
    )


def test_ignored_samples_do_not_count_and_none_is_0_with_zero_gradient() -> None:
    logits, targets = batch()
    kept = torch.tensor([0, 2, 3, 7])
    some = torch.full_like(targets, -100)
    some[kept] = targets[kept]
    loss = Lade(torch.tensor(COUNTS))
    torch.testing.assert_close(loss(logits, some), loss(logits[kept], targets[kept]))
    logits.requires_grad_()
    value = loss(logits, torch.full_like(targets, -100))
    value.backward()
    assert value == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_a_class_without_images_takes_no_part() -> None:
    logits, targets = batch()
    logits.requires_grad_()
    value = Lade(torch.tensor([100, 40, 20, 0]))(logits, targets)
    value.backward()
    assert logits.grad is not None
    assert not logits.grad[:, 3].any()
    torch.testing.assert_close(value, lade_loss(logits[:, :3], targets, class_counts=[100, 40, 20]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_value_and_gradient_are_finite_at_extreme_logits(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, 50.0, -50.0, 1e4, -1e4])
    logits = torch.cartesian_prod(values, values, values).to(dtype).requires_grad_()
    for target in (0, 2):
        targets = torch.full((len(logits),), target)
        found = lade_loss(logits, targets, class_counts=[10**6, 0, 1])
        found.backward()
        assert torch.isfinite(found)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_derivatives_are_right() -> None:
    logits, targets = batch()
    logits.requires_grad_()

    def loss(x: Tensor) -> Tensor:
        return lade_loss(x, targets, class_counts=COUNTS)

    assert torch.autograd.gradcheck(loss, logits)
    assert torch.autograd.gradgradcheck(loss, logits)
