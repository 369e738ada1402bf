from typing import Any, Literal

import pytest
import torch

from engine.config.load import load
from engine.training import build

CPU = torch.device("cpu")
TINY = ["data=synthetic", "data.channels=3", "model.ema=0.9"]


@pytest.mark.parametrize(
    ("device", "precision", "layout"),
    [
        ("cpu", "float32", torch.channels_last),
        ("cpu", "bfloat16", torch.channels_last),
        ("cuda", "float32", torch.contiguous_format),
        ("cuda", "bfloat16", torch.channels_last),
        ("cuda", "float16", torch.channels_last),
        ("mps", "bfloat16", torch.contiguous_format),
    ],
)
def test_weights_are_channels_last_where_that_is_faster(
    device: str, precision: Literal["float32", "bfloat16", "float16"], layout: torch.memory_format
) -> None:
    assert build.weight_layout(torch.device(device), precision=precision) == layout


def test_a_trainer_lays_out_its_weights_its_averages_and_so_its_feature_maps() -> None:
    config = load(overrides=TINY)
    trainer = build.build_trainer(config, build.build_dataset(config), device=CPU)
    backbone: Any = trainer.model.backbone
    maps = backbone.forward_features(torch.rand(2, 3, 8, 8))
    for module in (trainer.model, trainer.evaluated):
        kernels = [value for value in module.parameters() if value.ndim == 4]
        assert kernels and all(k.is_contiguous(memory_format=torch.channels_last) for k in kernels)
    assert maps.is_contiguous(memory_format=torch.channels_last)
    assert not maps.is_contiguous()


def test_the_layout_changes_no_number_beyond_rounding() -> None:
    config = load(overrides=TINY)
    dataset = build.build_dataset(config)
    laid_out = build.build_trainer(config, dataset, device=CPU).model.double()
    plain = build.build_model(config, dataset).double()
    images = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(laid_out(images).logits, plain(images).logits)
