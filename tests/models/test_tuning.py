"""Light tuning: what trains, what rests, and that what is added computes its formula."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations

import models
from engine.config import components
from models import ModelError
from models.tuning.lora import Lora
from tests.models._models import build

SIZES = {"test_vit": 32, "test_convnext": 32, "test_efficientnet": 32, "cifar_resnet8": 8}


def tuned(name: str, way: str | None, **keys: Any) -> models.Classifier:
    """A small model, tuned in one way; the same weights at every call."""
    torch.manual_seed(0)
    tuning = None if way is None else components.build("models.tuning", way, keys)
    size = SIZES.get(name, 32)
    return build(name, num_outputs=3, in_channels=3, image_size=size, tuning=tuning)


def images_for(name: str) -> Tensor:
    size = SIZES.get(name, 32)
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))


def trained(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def moved(model: models.Classifier) -> models.Classifier:
    """The model with random numbers in all that is trained, so that nothing added is zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


# --- what trains ----------------------------------------------------------------------------------

CONV = "backbone.layer3.0.conv1.weight"
HEAD = {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("name", "way", "keys", "expected"),
    [
        ("cifar_resnet8", "head", {}, set()),
        ("cifar_resnet8", "bias", {}, {"bn1.bias", "layer1.0.bn1.bias", "layer1.0.bn2.bias"}),
        ("cifar_resnet8", "norm", {}, {"bn1.bias", "bn1.weight", "layer1.0.bn1.weight"}),
        ("cifar_resnet8", "last_blocks", {}, {"layer3.0.conv1.weight", "layer3.0.bn2.bias"}),
        ("test_vit", "bias", {}, {"blocks.0.attn.qkv.bias", "norm.bias", "patch_embed.proj.bias"}),
        ("test_vit", "norm", {}, {"blocks.0.norm1.weight", "norm.bias"}),
        ("test_vit", "last_blocks", {"num_blocks": 2}, {"blocks.4.mlp.fc1.weight", "norm.weight"}),
        ("test_vit", "lora", {}, {"blocks.0.attn.qkv.lora.down.weight"}),
        ("test_vit", "adapter", {}, {"blocks.5.mlp.adapter.up.bias"}),
        ("test_vit", "prompt", {"prompt_depth": "deep"}, {"blocks.5.prompt.tokens"}),
    ],
)
def test_a_way_trains_the_head_and_its_own_part(
    name: str, way: str, keys: dict[str, Any], expected: set[str]
) -> None:
    found = trained(tuned(name, way, **keys))
    assert found >= HEAD | {f"backbone.{key}" for key in expected}
    words = {
        "head": lambda key: False,
        "bias": lambda key: key.endswith("bias"),
        "norm": lambda key: "norm" in key or "bn" in key,
        "last_blocks": lambda key: (
            "layer3" in key or "blocks.4" in key or ".5." in key or "norm." in key
        ),
        "lora": lambda key: ".lora." in key,
        "adapter": lambda key: ".mlp.adapter." in key,
        "prompt": lambda key: ".prompt.tokens" in key,
    }
    assert all(words[way](key) for key in found - HEAD)


def test_low_rank_products_go_where_they_are_asked_for() -> None:
    def layers(word: str) -> set[str]:
        found = trained(tuned("test_vit", "lora", lora_layers=word)) - HEAD
        return {key.partition(".lora.")[0].rpartition(".")[2] for key in found}

    assert layers("attention") == {"qkv", "proj"}
    assert layers("mlp") == {"fc1", "fc2"}
    assert layers("all") == {"qkv", "proj", "fc1", "fc2"}


def test_convolutions_of_one_pixel_take_them_too_and_others_do_not() -> None:
    model = tuned("test_efficientnet", "lora")
    for name, module in model.backbone.named_modules():
        if isinstance(module, nn.Conv2d) and not models.is_added(name):
            is_pointwise = module.kernel_size == (1, 1) and module.groups == 1
            assert hasattr(module, "lora") == is_pointwise, name


@pytest.mark.parametrize(
    ("name", "way", "keys", "line"),
    [
        (
            "cifar_resnet8",
            "prompt",
            {},
            "model.tune=prompt: cifar_resnet8 is no plain vision transformer, whose blocks see one "
            "sequence; it can be tuned by full, bias, head, last_blocks, norm",
        ),
        (
            "cifar_resnet8",
            "lora",
            {},
            "model.tune=lora: cifar_resnet8 has no linear layer or 1x1 convolution; it can be "
            "tuned by full, bias, head, last_blocks, norm",
        ),
        (
            "test_efficientnet",
            "adapter",
            {},
            "model.tune=adapter: test_efficientnet has no MLP of linear layers over features (..., "
            "D); it can be tuned by full, bias, head, last_blocks, lora, norm",
        ),
        (
            "cifar_resnet8",
            "last_blocks",
            {"num_blocks": 4},
            "model.tune=last_blocks: cifar_resnet8 has 3 blocks above its first layer, set "
            "model.num_blocks to 3 or less; it can be tuned by full, bias, head, last_blocks, norm",
        ),
        (
            "beit_base_patch16_224",
            "lora",
            {"lora_layers": "attention"},
            "model.tune=lora: beit_base_patch16_224 uses the weight of blocks.0.attn.qkv without "
            "calling that layer, so that nothing can be added; another model.lora_layers may do; "
            "it can be tuned by full, adapter, bias, head, last_blocks, norm",
        ),
    ],
)
def test_a_family_that_cannot_is_refused_and_told_what_it_can(
    name: str, way: str, keys: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.startswith("beit"):  # its smallest is large
        monkeypatch.setattr("tests.models.test_tuning.SIZES", {name: 32})
        keys, options = dict(keys), {"kwargs": {"embed_dim": 24, "depth": 1, "num_heads": 2}}
    else:
        options = {}
    tuning = components.build("models.tuning", way, keys)
    size = SIZES.get(name, 32)
    with pytest.raises(ModelError) as caught:
        build(name, num_outputs=3, in_channels=3, image_size=size, tuning=tuning, **options)
    assert str(caught.value) == line


# --- what rests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["head", "bias", "norm", "last_blocks"])
def test_statistics_move_only_where_the_normalisation_is_trained_whole(way: str) -> None:
    model = tuned("cifar_resnet8", way).train()
    before = copy.deepcopy(model.state_dict())
    model(images_for("cifar_resnet8"))
    changed = {
        key.removesuffix(".running_mean")
        for key, value in model.state_dict().items()
        if key.endswith("running_mean") and not torch.equal(value, before[key])
    }
    norms = {k.removesuffix(".running_mean") for k in before if k.endswith("running_mean")}
    expected = {
        "head": set(),
        "bias": set(),
        "norm": norms,
        "last_blocks": {key for key in norms if "layer3" in key},
    }
    assert changed == expected[way]


def test_dropout_goes_with_the_part_that_it_is_in() -> None:
    torch.manual_seed(0)
    tuning = components.build("models.tuning", "last_blocks", {"num_blocks": 1})
    options: dict[str, Any] = {"kwargs": {"drop_path_rate": 0.5}, "tuning": tuning}
    model = build("test_vit", num_outputs=3, in_channels=3, image_size=32, **options).train()
    modes = [block.drop_path1.training for block in model.backbone.blocks]
    assert modes == [False] * 5 + [True]


@pytest.mark.parametrize("way", ["lora", "adapter"])
def test_training_begins_at_the_function_of_the_backbone(way: str) -> None:
    images = images_for("test_vit")
    plain, light = tuned("test_vit", None).eval(), tuned("test_vit", way).eval()
    torch.testing.assert_close(light(images).logits, plain(images).logits, atol=0, rtol=0)


def test_the_head_starts_alike_in_every_way_of_tuning() -> None:
    ways = (None, "head", "lora", "adapter", "prompt")
    first, *others = (tuned("test_vit", way).head.weight for way in ways)
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("way", ["lora", "adapter", "prompt"])
def test_a_copy_has_parts_of_its_own(way: str) -> None:
    images = images_for("test_vit")
    model = moved(tuned("test_vit", way))
    twin = copy.deepcopy(model)
    expected = model(images).logits
    moved(model)
    assert not torch.equal(model(images).logits, expected)
    assert torch.equal(twin(images).logits, expected)


# --- low-rank products ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_merged_weights_under_timms_names_predict_the_same(name: str) -> None:
    images = images_for(name)
    model = moved(tuned(name, "lora", lora_rank=2, lora_alpha=3.0))
    plain = tuned(name, None).eval()
    plain.load_state_dict(models.merged(model.state_dict(), scale=1.5))
    expected = model(images).logits
    assert not torch.allclose(tuned(name, None).eval()(images).logits, expected, atol=1e-3)
    torch.testing.assert_close(plain(images).logits, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        *(kind(4, 4, 1) for kind in (StdConv2d, StdConv2dSame)),
        *(kind(4, 4, 1) for kind in (ScaledStdConv2d, ScaledStdConv2dSame)),
        parametrizations.weight_norm(nn.Conv2d(4, 4, 1)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_change_their_weight_before_its_use_take_no_product(layer: nn.Module) -> None:
    backbone = nn.Sequential(layer, nn.Conv2d(4, 5, 1))
    assert Lora().targets(backbone, torch.zeros(1, 4, 2, 2)) == ["1"]


def test_training_goes_as_if_the_products_were_in_the_weights() -> None:
    """Three steps of SGD with momentum on A and B, the weights W + s B A made anew each step."""
    images, labels = images_for("test_vit"), torch.tensor([0, 1, 2, 0])
    model = tuned("test_vit", "lora", lora_rank=2, lora_alpha=4.0).train()
    plain = tuned("test_vit", None).eval()
    frozen = {key: value.detach() for key, value in plain.state_dict().items()}
    free = {
        key: p.detach().clone().requires_grad_()
        for key, p in model.named_parameters()
        if p.requires_grad
    }
    ours = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1, momentum=0.9)
    theirs = torch.optim.SGD(free.values(), 0.1, momentum=0.9)
    for _ in range(3):
        ours.zero_grad()
        nn.functional.cross_entropy(model(images).logits, labels).backward()
        ours.step()
        theirs.zero_grad()
        weights = {**frozen, **{key: p for key, p in free.items() if key in frozen}}
        for key, down in free.items():
            if key.endswith(".lora.down.weight"):
                layer = key.removesuffix(".lora.down.weight")
                product = free[f"{layer}.lora.up.weight"] @ down
                weights[f"{layer}.weight"] = frozen[f"{layer}.weight"] + 2.0 * product
        logits = functional_call(plain, weights, (images,)).logits
        nn.functional.cross_entropy(logits, labels).backward()
        theirs.step()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter, free[key], atol=1e-5, rtol=1e-5, msg=key)
        else:
            assert torch.equal(parameter, frozen[key]), key


# --- adapters and prompts: their formulas, block by block -----------------------------------------


def tokens_of(vit: nn.Module, images: Tensor) -> Tensor:
    """The sequence that the first block is given."""
    assert isinstance(vit, VisionTransformer)
    assert vit.num_prefix_tokens == 1
    return vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))


def features_of(vit: nn.Module, sequence: Tensor) -> Tensor:
    """What the head is given of the last block's output."""
    assert isinstance(vit, VisionTransformer)
    return vit.fc_norm(vit.pool(vit.norm(sequence)))


def attended(block: nn.Module, x: Tensor) -> Tensor:
    return x + block.attn(block.norm1(x))


def test_an_adapter_is_the_second_branch_of_the_paper() -> None:
    images, model = images_for("test_vit"), moved(tuned("test_vit", "adapter", adapter_width=5))
    plain = tuned("test_vit", None).backbone.eval()
    x = tokens_of(plain, images)
    for block, own in zip(plain.blocks, model.backbone.blocks, strict=True):
        x = attended(block, x)
        normed, branch = block.norm2(x), own.mlp.adapter
        hidden = (normed @ branch.down.weight.T + branch.down.bias).clamp(min=0)
        x = x + block.mlp(normed) + 0.1 * (hidden @ branch.up.weight.T + branch.up.bias)
    torch.testing.assert_close(model(images).features, features_of(plain, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("depth", ["shallow", "deep"])
def test_prompts_stand_between_the_class_token_and_the_patches(depth: str) -> None:
    images = images_for("test_vit")
    model = moved(tuned("test_vit", "prompt", prompt_tokens=3, prompt_depth=depth))
    plain = tuned("test_vit", None).backbone.eval()
    x = tokens_of(plain, images)
    head, prompts, patches = x[:, :1], x[:, :0], x[:, 1:]
    for block, own in zip(plain.blocks, model.backbone.blocks, strict=True):
        if hasattr(own, "prompt"):
            prompts = own.prompt.tokens.expand(len(images), -1, -1)
        y = torch.cat([head, prompts, patches], dim=1)
        y = attended(block, y)
        y = y + block.mlp(block.norm2(y))
        head, prompts, patches = y[:, :1], y[:, 1:4], y[:, 4:]
    expected = features_of(plain, torch.cat([head, patches], dim=1))
    torch.testing.assert_close(model(images).features, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", ["given a gradient", "given none"])
def test_a_low_rank_layer_has_the_gradients_of_its_formula(first: str) -> None:
    is_leaf = first == "given a gradient"
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3, bias=False)).double()
    net.requires_grad_(False)
    Lora(lora_rank=2, lora_alpha=3.0).apply(net, torch.zeros(1, 5).double())
    net.double()
    products = [layer.get_submodule("lora") for layer in net]
    for product in products:
        nn.init.normal_(product.up.weight)  # type: ignore[union-attr]
    inputs = torch.randn(2, 6, 5, dtype=torch.double, requires_grad=is_leaf)
    weights = [w for p in products for w in (p.down.weight, p.up.weight)]  # type: ignore[union-attr]
    asked = [*([inputs] if is_leaf else []), *weights]
    found = net(inputs)
    expected = inputs
    for layer, (down, up) in zip(net, (weights[:2], weights[2:]), strict=True):
        expected = F.linear(expected, layer.weight + 1.5 * up @ down, layer.bias)  # type: ignore[arg-type,operator]
    torch.testing.assert_close(found, expected)
    slopes = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad(out, asked, slopes) for out in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_a_low_rank_layer_computes_in_16_bits_under_autocast() -> None:
    model = tuned("test_vit", "lora")
    layer: Any = model.backbone.get_submodule("blocks.0.attn.qkv")
    inputs = torch.randn(2, 5, layer.in_features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(inputs)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(inputs), atol=0.02, rtol=0.02)
    found.float().sum().backward()
    assert layer.lora.up.weight.grad.dtype == torch.float32
