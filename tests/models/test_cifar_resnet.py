"""The CIFAR ResNets, alone and through timm."""

import math

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.cifar_resnet import BasicBlock

DEPTHS = [8, 20, 32, 44, 56, 110]


def count_parameters(depth: int, *, in_channels: int, num_classes: int) -> int:
    """Parameters as the paper's description has them, without looking at the code."""
    blocks = (depth - 2) // 6
    convolutions = [(in_channels, 16)]
    for channels, before in [(16, 16), (32, 16), (64, 32)]:
        convolutions += [(before, channels)] + [(channels, channels)] * (2 * blocks - 1)
    kernels = sum(9 * inputs * outputs for inputs, outputs in convolutions)
    norms = sum(2 * outputs for _, outputs in convolutions)
    return kernels + norms + 64 * num_classes + num_classes


@pytest.mark.parametrize("depth", DEPTHS)
def test_each_depth_has_the_parameters_that_the_paper_describes(depth: int) -> None:
    model = timm.create_model(f"cifar_resnet{depth}", num_classes=10)
    expected = count_parameters(depth, in_channels=3, num_classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_resnet32_has_464154_parameters() -> None:
    assert count_parameters(32, in_channels=3, num_classes=10) == 464_154


def test_resnet8_has_one_block_a_stage_and_75290_parameters() -> None:
    model = timm.create_model("cifar_resnet8", num_classes=10)
    assert [len(stage) for stage in (model.layer1, model.layer2, model.layer3)] == [1, 1, 1]
    assert count_parameters(8, in_channels=3, num_classes=10) == 75_290


def test_depth_counts_the_layers_with_weights() -> None:
    model = timm.create_model("cifar_resnet32")
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 32


def test_timms_own_resnets_are_still_timms() -> None:
    assert type(timm.create_model("resnet18")).__module__ == "timm.models.resnet"
    assert set(timm.list_models("cifar_resnet*")) == {f"cifar_resnet{depth}" for depth in DEPTHS}


def test_channels_and_classes_are_those_asked_for() -> None:
    model = timm.create_model("cifar_resnet20", in_chans=1, num_classes=7)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 7)


@settings(max_examples=10)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_images_of_any_size_work(height: int, width: int) -> None:
    model = timm.create_model("cifar_resnet20", in_chans=1).eval()
    with torch.no_grad():
        maps = model.forward_features(torch.zeros(1, 1, height, width))
    assert maps.shape == (1, 64, math.ceil(height / 4), math.ceil(width / 4))


def test_timms_way_to_features_and_classifiers_is_kept() -> None:
    model = timm.create_model("cifar_resnet20").eval()
    maps = model.forward_features(torch.randn(2, 3, 8, 8))
    features = model.forward_head(maps, pre_logits=True)
    torch.testing.assert_close(features, maps.mean((2, 3)))
    torch.testing.assert_close(model.forward_head(maps), model.get_classifier()(features))
    assert features.shape[1] == model.num_features == model.head_hidden_size


def test_a_reset_classifier_has_the_new_number_of_classes() -> None:
    model = timm.create_model("cifar_resnet20")
    model.reset_classifier(3)
    assert (model.num_classes, model.get_classifier().out_features) == (3, 3)
    model.reset_classifier(0)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 64)


def test_the_shortcut_takes_every_second_pixel_and_adds_channels_of_zeros() -> None:
    block = BasicBlock(4, 8, stride=2, norm_layer=nn.BatchNorm2d)
    nn.init.zeros_(block.bn2.weight)  # leaves the shortcut alone
    images = torch.rand(2, 4, 5, 7)
    expected = torch.zeros(2, 8, 3, 4)
    expected[:, 2:6] = images[:, :, ::2, ::2]
    assert torch.equal(block(images), expected)


def test_the_residual_is_two_normalised_convolutions() -> None:
    block = BasicBlock(4, 4, stride=1, norm_layer=nn.BatchNorm2d)
    images = torch.randn(8, 4, 5, 5)

    def normalise(maps: torch.Tensor) -> torch.Tensor:
        centred = maps - maps.mean((0, 2, 3), keepdim=True)
        return centred / (maps.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()

    inner = normalise(F.conv2d(images, block.conv1.weight, padding=1)).relu()
    outer = normalise(F.conv2d(inner, block.conv2.weight, padding=1))
    torch.testing.assert_close(block(images), (images + outer).relu(), rtol=1e-4, atol=1e-5)


def test_weights_start_kaiming_normal_in_convolutions_and_in_the_linear_layer() -> None:
    torch.manual_seed(0)
    model = timm.create_model("cifar_resnet56", num_classes=100)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        fan_in = layer.weight[0].numel()
        spread = layer.weight.std().item() / math.sqrt(2 / fan_in)
        assert spread == pytest.approx(1, abs=0.15)
        assert layer.weight.abs().max() > 2.3 * math.sqrt(2 / fan_in)  # no uniform distribution


def test_convolutions_have_no_bias() -> None:
    model = timm.create_model("cifar_resnet20")
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d))


def test_timms_name_of_a_normalisation_is_taken() -> None:
    model = timm.create_model("cifar_resnet20", norm_layer="groupnorm1")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert any(isinstance(m, nn.GroupNorm) for m in model.modules())
