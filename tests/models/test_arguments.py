"""Arguments of timm's constructors: they arrive, and an unknown one names its neighbour."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models import ModelError
from tests.models._models import build

SMALL: dict[str, Any] = {"num_outputs": 3, "in_channels": 3, "image_size": 32}


def test_dropout_and_stochastic_depth_arrive_in_timms_model() -> None:
    model = build(
        "test_vit", kwargs={"drop_rate": 0.3, "drop_path_rate": 0.2}, **SMALL | {"image_size": 160}
    )
    assert model.backbone.head_drop.p == 0.3
    assert model.backbone.blocks[-1].drop_path1.drop_prob == pytest.approx(0.2)


def test_without_them_the_weights_are_the_same() -> None:
    states = []
    for options in ({}, {"kwargs": {"drop_path_rate": 0.1, "zero_init_last": True}}):
        torch.manual_seed(0)
        states.append(build("resnet10t", **options, **SMALL).backbone.conv1[0].weight)
    assert torch.equal(*states)


def test_an_unknown_argument_names_the_nearest_and_all_that_there_are() -> None:
    with pytest.raises(ModelError) as caught:
        build("cifar_resnet8", kwargs={"global_pol": "avg"}, **SMALL)
    assert str(caught.value) == (
        "model.kwargs.global_pol: cifar_resnet8 takes no global_pol (did you mean global_pool?); "
        "it takes num_blocks, global_pool, norm_layer"
    )


def test_a_model_without_stochastic_depth_says_so() -> None:
    with pytest.raises(
        ModelError, match=r"^model\.drop_path: has no effect, cifar_resnet8 has no st"
    ):
        build("cifar_resnet8", kwargs={"drop_path_rate": 0.1}, **SMALL)


def test_a_value_that_the_constructor_does_not_take_is_one_line() -> None:
    with pytest.raises(ModelError, match="cannot be built with 3 channels, depth=x") as caught:
        build("test_vit", kwargs={"depth": "x"}, **SMALL | {"image_size": 160})
    assert "\n" not in str(caught.value)
