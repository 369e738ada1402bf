"""Sharpness-aware minimisation: where the gradient is taken, and that the weights come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from engine.training.sharpness import ascended
from tests._runs import folder_of, rows_of, small_run, weights_of


def gradient(model: nn.Module, images: torch.Tensor) -> None:
    model.zero_grad()
    model(images).square().mean().backward()


def test_the_gradient_is_taken_at_the_weights_moved_along_their_own_gradient() -> None:
    torch.manual_seed(0)
    model, images = nn.Linear(3, 2), torch.randn(5, 3)
    before = [p.detach().clone() for p in model.parameters()]
    gradient(model, images)
    slopes = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    length = torch.cat([slope.flatten() for slope in slopes]).norm()
    with ascended(model, list(model.parameters()), distance=0.5):
        for parameter, value, slope in zip(model.parameters(), before, slopes, strict=True):
            torch.testing.assert_close(parameter.detach(), value + 0.5 * slope / length)
        gradient(model, images)
    assert all(torch.equal(p, value) for p, value in zip(model.parameters(), before, strict=True))
    assert not torch.equal(next(model.parameters()).grad, slopes[0])


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_a_gradient_of_no_length_or_an_overflowed_one_moves_nothing(value: float) -> None:
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, value)
    with ascended(model, list(model.parameters()), distance=0.5):
        assert torch.equal(model.weight, before)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
@pytest.mark.parametrize("factor", [1.0, float("nan")])
def test_the_statistics_of_batch_normalisation_rest_at_the_moved_weights(
    kind: Callable[[int], nn.Module], factor: float
) -> None:
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Conv2d(3, 2, 1), kind(2)), torch.randn(5, 3, 2, 2)
    gradient(model, images)
    before = {name: value.clone() for name, value in model[1].named_buffers()}
    with ascended(model, list(model.parameters()), distance=0.5):
        gradient(model, images * factor)
    assert before.keys() == {"running_mean", "running_var", "num_batches_tracked"}
    assert all(torch.equal(value, before[name]) for name, value in model[1].named_buffers())
    gradient(model, images)
    assert not any(torch.equal(value, before[name]) for name, value in model[1].named_buffers())


def test_batch_normalisation_still_normalises_by_the_batch_at_the_moved_weights() -> None:
    model, images = nn.BatchNorm1d(2), torch.tensor([[1.0, 2.0], [3.0, 8.0]])
    gradient(model, images)
    with ascended(model, list(model.parameters()), distance=0.0):
        torch.testing.assert_close(model(images).mean(dim=0), torch.zeros(2))


def test_pieces_of_a_batch_look_from_where_the_whole_batch_does(tmp_path: Path) -> None:
    words = ("model=cifar_resnet8", "model.norm=group", "schedule.epochs=1", "optim.sam=0.5")
    rows, weights = [], []
    for pieces in (1, 2):
        own = (*words, f"optim.accumulate={pieces}")
        small_run(tmp_path, *own)
        rows.append(rows_of(folder_of(tmp_path, *own)))
        weights.append(weights_of(folder_of(tmp_path, *own)))
    for key, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][key], atol=1e-5, rtol=1e-4, msg=key)
    plain = words[:-1]
    small_run(tmp_path, *plain)
    other = rows_of(folder_of(tmp_path, *plain))
    assert other[0]["train/loss"] != rows[0][0]["train/loss"]
