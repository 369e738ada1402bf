"""What a teacher says is what the run that it was predicts, whatever its loss makes of logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import losses
from engine.training.teacher import Teacher

COUNTS = torch.tensor([100, 40, 20, 5, 7])


class Fixed(nn.Module):
    """A model whose logits are what it is given."""

    def forward(self, logits: Tensor) -> tuple[Tensor, None]:
        return logits, None


@pytest.mark.parametrize("name", losses.names())
def test_the_softmax_of_a_teachers_logits_is_what_its_loss_predicts(name: str) -> None:
    loss = losses.build(name, class_counts=COUNTS)
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    found = Teacher(Fixed(), loss)(logits)
    torch.testing.assert_close(found.softmax(1), loss.predict(logits))


@pytest.mark.parametrize("name", ["cross_entropy", "balanced_softmax", "distillation"])
def test_logits_of_a_plain_softmax_are_handed_on_as_they_are(name: str) -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = Teacher(Fixed(), losses.build(name, class_counts=COUNTS))(logits)
    assert found is logits


@pytest.mark.parametrize("name", ["ldam", "sigmoid_focal"])
def test_a_teacher_that_is_wholly_sure_says_so_in_finite_numbers(name: str) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0, 0.0, -1e4]])
    found = Teacher(Fixed(), losses.build(name, class_counts=COUNTS))(logits)
    assert found.isfinite().all()
    assert found.softmax(1)[0, 0] == losses.build(name, class_counts=COUNTS).predict(logits)[0, 0]
