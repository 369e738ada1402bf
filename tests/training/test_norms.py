"""Gradients of norms in 16 bits on a CPU are as good as their maps, however they are made."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from timm.layers import BatchNormAct2d, LayerNorm2d
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from engine.training.norms import InFloat32, normalise_in_float32
from engine.training.runtime import autocast

CPU = torch.device("cpu")
WITH_SCALES: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm2d(8),
    "batch and activation": lambda: BatchNormAct2d(8),
    "group": lambda: nn.GroupNorm(2, 8),
    "instance": lambda: nn.InstanceNorm2d(8, affine=True),
    "layer": lambda: nn.LayerNorm(8),
    "layer of channels": lambda: LayerNorm2d(8),
}
WITHOUT: dict[str, Callable[[], nn.Module]] = {
    "batch": lambda: nn.BatchNorm2d(8, affine=False),
    "group": lambda: nn.GroupNorm(2, 8, affine=False),
    "instance": lambda: nn.InstanceNorm2d(8),
    "layer": lambda: nn.LayerNorm(8, elementwise_affine=False),
}
NORMS = WITH_SCALES | {f"{name}, no scales": make for name, make in WITHOUT.items()}


def drawn(seed: int) -> Tensor:
    """Return maps (16, 8, 8, 8) whose mean is not small beside their deviation."""
    generator = torch.Generator().manual_seed(seed)
    return (10 + torch.randn(16, 8, 8, 8, generator=generator)).bfloat16()


def gradients(norm: nn.Module, forward: Callable[[Tensor], Tensor], maps: Tensor) -> list[Tensor]:
    norm.zero_grad()
    maps = maps.clone().requires_grad_()
    result = forward(maps)
    result.backward((drawn(1) - 9.5).to(result.dtype))
    found = [maps.grad, *(parameter.grad for parameter in norm.parameters())]
    return [gradient.double() for gradient in found if gradient is not None]


def errors(norm: nn.Module, forward: Callable[[Tensor], Tensor]) -> list[float]:
    """Return how far gradients are from those of float64, as a share of their size."""
    with autocast(CPU, "bfloat16"):
        found = gradients(norm, forward, drawn(0))
    exact = gradients(norm.double(), norm, drawn(0).double())
    norm.float()
    return [float((f - e).norm() / e.norm()) for f, e in zip(found, exact, strict=True)]


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("kind", NORMS)
def test_gradients_in_bfloat16_are_as_good_as_the_maps(kind: str, *, is_compiled: bool) -> None:
    """A number of bfloat16 has an error of 0.002."""
    torch.compiler.reset()
    norm = NORMS[kind]()
    normalise_in_float32(norm)
    forward = torch.compile(norm, backend="aot_eager_decomp_partition") if is_compiled else norm
    found = errors(norm, forward)
    assert len(found) == 1 + len(list(norm.parameters()))
    assert max(found) < 0.005


@pytest.mark.parametrize("kind", ["layer", "group, no scales", "instance, no scales"])
def test_without_it_they_are_not(kind: str) -> None:
    norm = NORMS[kind]()
    assert max(errors(norm, norm)) > 0.005


def test_maps_of_32_bits_go_through_as_they_are() -> None:
    norm, plain = nn.LayerNorm(8), nn.LayerNorm(8)
    normalise_in_float32(norm)
    assert torch.equal(norm(drawn(0).float()), plain(drawn(0).float()))


def test_activations_may_be_recomputed() -> None:
    norm = nn.Sequential(nn.Conv2d(8, 8, 1), LayerNorm2d(8))
    normalise_in_float32(norm)
    with autocast(CPU, "bfloat16"):
        result = checkpoint(norm, drawn(0).float().requires_grad_(), use_reentrant=False)
    result.float().sum().backward()
    assert norm[0].weight.grad is not None


def test_a_changed_norm_keeps_its_state_its_name_and_what_is_made_of_it() -> None:
    norm = nn.Sequential(nn.BatchNorm2d(8), nn.GELU(), nn.LayerNorm(8))
    before = norm.state_dict()
    normalise_in_float32(norm)
    normalise_in_float32(norm)
    assert list(norm.state_dict()) == list(before)
    assert [type(module).__name__ for module in norm] == ["BatchNorm2d", "GELU", "LayerNorm"]
    assert type(copy.deepcopy(norm)[2]) is type(norm[2])
    assert type(norm[2]).__mro__.count(InFloat32) == 1
    other = nn.LayerNorm(4)
    normalise_in_float32(other)
    assert type(other) is type(norm[2])  # a compiler asks for the class
