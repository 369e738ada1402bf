"""Smoothing by class where a sample has fewer classes: the loss among those that are left."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from losses.class_conditional_smoothing import class_conditional_smoothing_loss
from losses.label_aware_smoothing import label_aware_smoothing_loss

COUNTS = torch.tensor([100, 40, 20, 5])
LEFT = [0, 1, 3]  # with the most and the fewest images, so that strengths stay as they are

each_loss = pytest.mark.parametrize(
    "loss", [label_aware_smoothing_loss, class_conditional_smoothing_loss]
)


def logits_of(labels: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(len(labels), 4, generator=generator, dtype=torch.float64)


@each_loss
@pytest.mark.parametrize("is_soft", [False, True], ids=["labels", "mixtures"])
def test_a_class_at_minus_infinity_is_as_if_there_were_no_such_class(
    loss: Callable[..., Tensor], *, is_soft: bool
) -> None:
    targets = torch.arange(6) % len(LEFT)  # among those that are left
    whole = torch.tensor(LEFT)[targets]
    masked, left = logits_of(targets), logits_of(targets)[:, LEFT]
    masked[:, 2] = -torch.inf
    if is_soft:
        targets = logits_of(targets)[:, :3].softmax(dim=1)
        whole = torch.zeros(6, 4, dtype=targets.dtype)
        whole[:, LEFT] = targets
    masked.requires_grad_()
    left.requires_grad_()
    found = loss(masked, whole, class_counts=COUNTS, reduction="none")
    expected = loss(left, targets, class_counts=COUNTS[LEFT], reduction="none")
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    expected.sum().backward()
    assert masked.grad is not None and left.grad is not None
    torch.testing.assert_close(masked.grad[:, LEFT], left.grad)
    assert masked.grad[:, 2].tolist() == [0] * 6


@each_loss
def test_a_target_at_minus_infinity_alone_makes_the_loss_infinite(
    loss: Callable[..., Tensor],
) -> None:
    targets = torch.tensor([2, 3, 2])
    logits = logits_of(targets)
    logits[:2, 2] = -torch.inf
    found = loss(logits, targets, class_counts=COUNTS, reduction="none")
    assert found.isinf().tolist() == [True, False, False]


@each_loss
def test_the_only_class_that_is_left_costs_nothing(loss: Callable[..., Tensor]) -> None:
    logits = torch.full((1, 4), -torch.inf)
    logits[0, 3] = 1.5
    assert loss(logits, torch.tensor([3]), class_counts=COUNTS).item() == 0


@each_loss
def test_a_sample_that_does_not_count_may_lack_any_class(loss: Callable[..., Tensor]) -> None:
    targets = torch.tensor([1, -100, 3])
    logits = logits_of(targets.clamp_min(0))
    logits[1, 0] = -torch.inf
    expected = loss(logits[[0, 2]], targets[[0, 2]], class_counts=COUNTS)
    torch.testing.assert_close(loss(logits, targets, class_counts=COUNTS), expected)
