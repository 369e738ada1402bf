"""The learning rate as a function of progress, and what the optimizer does to which weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.optim import get_optimizer_info, list_optimizers
from torch import nn

from engine.config.mistakes import ConfigError
from engine.training import build
from engine.training.optim import build_optimizer
from engine.training.rates import rate_factor
from engine.training.schedules._base import Schedule
from engine.training.schedules.constant import Constant
from engine.training.schedules.cosine import Cosine
from engine.training.schedules.steps import Steps
from engine.training.train_loop import Trainer
from tests._runs import small_config

# --- the rate -------------------------------------------------------------------------------------


def test_the_ldam_recipe_warms_up_over_five_epochs_and_falls_at_160_and_180() -> None:
    """The schedule of the public LDAM-DRW code, epochs counted from 1 there."""

    def published(epoch: int) -> float:
        if epoch <= 5:
            return epoch / 5
        return 0.0001 if epoch > 180 else 0.01 if epoch > 160 else 1.0

    found = [
        rate_factor(e, 200, schedule=Steps(steps=(0.8, 0.9), decay=0.01), warmup=5 / 200)
        for e in range(200)
    ]
    assert found == pytest.approx([published(epoch) for epoch in range(1, 201)])


def test_cosine_is_half_a_wave_from_1_to_nearly_0() -> None:
    found = [rate_factor(unit, 100, schedule=Cosine(), warmup=0.0) for unit in range(100)]
    expected = torch.optim.lr_scheduler.CosineAnnealingLR(
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), T_max=100
    )
    closed_form = []
    for _ in range(100):
        closed_form.append(expected.get_last_lr()[0])
        expected.optimizer.step()
        expected.step()
    assert found == pytest.approx(closed_form, abs=1e-9)
    assert found[0] == 1.0
    assert found[-1] < 3e-4


def test_cosine_begins_where_the_warm_up_ends() -> None:
    found = [rate_factor(unit, 100, schedule=Cosine(), warmup=0.1) for unit in range(100)]
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert found[10] == 1.0
    assert found[55] == pytest.approx(0.5)


def test_a_constant_rate_is_1_after_the_warm_up() -> None:
    found = [rate_factor(unit, 10, schedule=Constant(), warmup=0.25) for unit in range(10)]
    assert found == pytest.approx([0.4, 0.8, *[1.0] * 8])


@given(
    units=st.integers(1, 500),
    warmup=st.floats(0, 0.95),
    schedule=st.sampled_from([Cosine(), Steps(steps=(0.5, 0.75)), Constant()]),
)
def test_a_rate_rises_then_never_rises_again_and_stays_above_0(
    units: int, warmup: float, schedule: Schedule
) -> None:
    found = [rate_factor(u, units, schedule=schedule, warmup=warmup) for u in range(units)]
    assert all(0 < factor <= 1 for factor in found)
    top = found.index(max(found))
    assert top <= math.ceil(warmup * units)
    assert all(a >= b for a, b in zip(found[top:], found[top + 1 :], strict=False))


@given(st.integers(2, 400), st.lists(st.sampled_from([0.2, 0.5, 0.8, 0.9]), unique=True))
def test_steps_fall_at_the_first_unit_at_or_after_their_fraction(
    units: int, steps: list[float]
) -> None:
    found = [
        rate_factor(u, units, schedule=Steps(steps=tuple(sorted(steps)), decay=0.5), warmup=0.0)
        for u in range(units)
    ]
    expected = [0.5 ** sum(u / units >= s - 1e-9 for s in steps) for u in range(units)]
    assert found == expected


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trainer]:
    """A trainer whose rate changes every step and one whose rate changes every epoch."""
    found = {}
    for unit in ("step", "epoch"):
        words = (f"schedule.unit={unit}", "schedule.epochs=10", "schedule.warmup=0.2")
        config = small_config(tmp_path_factory.mktemp(unit), *words)
        dataset = build.build_dataset(config)
        found[unit] = build.build_trainer(config, dataset, device=torch.device("cpu"))
    return found


def test_by_the_epoch_the_rate_rests_inside_one(trainers: dict[str, Trainer]) -> None:
    rate = trainers["epoch"].rate
    assert [rate(0, step, 4) for step in range(4)] == pytest.approx([0.025] * 4)
    assert rate(1, 0, 4) == pytest.approx(0.05)


def test_by_the_step_the_rate_moves_inside_an_epoch(trainers: dict[str, Trainer]) -> None:
    rate = trainers["step"].rate
    found = [rate(epoch, step, 4) for epoch in range(2) for step in range(4)]
    assert found == pytest.approx([0.05 * (i + 1) / 8 for i in range(8)])


# --- the optimizer --------------------------------------------------------------------------------


class Small(nn.Module):
    """Convolution, batch norm and a linear layer, all with biases."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)
        )
        for parameter in self.parameters():
            nn.init.ones_(parameter)


def test_weight_decay_falls_on_every_parameter_biases_and_norms_included() -> None:
    model = Small()
    optimizer = build_optimizer(model.parameters(), name="sgd", lr=0.5, weight_decay=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # Nesterov momentum 0.9 multiplies the first step by 1.9.
    expected = 1 - 0.5 * 0.1 * 1.9
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, expected), msg=name)


def test_momentum_is_plain_and_sgd_has_nesterovs() -> None:
    steps = {}
    for name in ("momentum", "sgd"):
        weight = nn.Parameter(torch.ones(1))
        optimizer = build_optimizer([weight], name=name, lr=1.0, weight_decay=0.0, momentum=0.5)
        weight.grad = torch.ones(1)
        optimizer.step()
        steps[name] = 1 - weight.item()
    assert steps == pytest.approx({"momentum": 1.0, "sgd": 1.5})


# These compile their step, which takes a compiler many seconds.
OPTIMIZERS = [
    pytest.param(str(name), marks=pytest.mark.slow if name.startswith("kron") else ())
    for name in list_optimizers()
]


def trained(name: str, *, momentum: float) -> list[torch.Tensor]:
    """The weights of a small network after two steps."""
    torch.manual_seed(0)
    model = Small()
    settings = {"lr": 0.01, "weight_decay": 1e-4, "momentum": momentum}
    optimizer = build_optimizer(model.parameters(), name=name, **settings)
    for _ in range(2):
        optimizer.zero_grad()
        model.layers(torch.randn(4, 1, 4, 4)).square().mean().backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_timm_trains_or_is_refused_in_one_line(name: str) -> None:
    for momentum in (0.9, 0.0) if get_optimizer_info(name).has_momentum else (0.9,):
        try:
            weights = trained(name, momentum=momentum)
        except ConfigError as error:
            (line,) = error.mistakes
            assert line.startswith(f"optim.name={name}: ")
        else:
            assert all(torch.isfinite(weight).all() for weight in weights)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adamw", "lamb", "lion", "muon", "rmsprop"])
def test_an_optimizer_that_papers_use_is_not_refused(name: str) -> None:
    assert trained(name, momentum=0.9)


def test_without_momentum_nesterovs_is_plain_gradient_descent() -> None:
    for a, b in zip(trained("sgd", momentum=0), trained("momentum", momentum=0), strict=True):
        assert torch.equal(a, b)


def test_second_derivatives_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim\.name=adahessian: needs second derivatives"):
        build_optimizer(Small().parameters(), name="adahessian", lr=0.1, weight_decay=0.0)


def test_trying_an_optimizer_leaves_weights_and_random_numbers_alone() -> None:
    model = Small()
    before = [p.detach().clone() for p in model.parameters()]
    state = torch.get_rng_state()
    build_optimizer(model.parameters(), name="sgdp", lr=0.1, weight_decay=0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_frozen_parameters_are_left_out() -> None:
    model = Small()
    model.layers[0].requires_grad_(requires_grad=False)
    optimizer = build_optimizer(model.parameters(), name="adamw", lr=0.1, weight_decay=0.1)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert len(held) == 4


def test_an_unknown_optimizer_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"optim\.name=adamv: .*\(did you mean adam\w?\?\)"):
        build_optimizer(Small().parameters(), name="adamv", lr=0.1, weight_decay=0.0)


def test_an_optimizer_like_no_other_says_where_the_names_are() -> None:
    with pytest.raises(ConfigError, match=r"such optimizer; timm\.optim\.list_optimizers\(\)"):
        build_optimizer(Small().parameters(), name="lbfgs", lr=0.1, weight_decay=0.0)


def test_a_momentum_that_the_optimizer_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optim\.momentum=0\.5: has no effect"):
        build_optimizer(Small().parameters(), name="adamw", lr=0.1, weight_decay=0.0, momentum=0.5)


def test_the_published_recipes_keep_to_this_schedule(tmp_path: Path) -> None:
    """schedule.steps of the default are the epochs 160 and 180 of 200."""
    config = small_config(tmp_path, "schedule=steps")
    assert [round(step * 200) for step in config.schedule.steps] == [160, 180]
