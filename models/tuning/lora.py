"""Low-rank adaptation."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from annotated_types import Ge, Gt
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.linear import Linear
from torch import Tensor, nn

from ._base import CannotTuneError, Tuning
from ._calls import calls_of

# Layers whose output is linear in the very weight that they hold. Not their subclasses: some, as
# timm's StdConv2d or a layer with a parametrization, change the weight first, and a merged product
# would be another function.
LINEAR = (nn.Linear, Linear)
CONVOLUTIONS = (nn.Conv2d, Conv2dSame)


class Lora(Tuning):
    """Add a product of two thin matrices to weights (Hu et al. 2022, LoRA).

    A layer W x + b becomes W x + b + alpha / rank * B A x, with A (rank, in) drawn as PEFT does and
    B (out, rank) zero, so that training begins at the function of the backbone.

    Args:
        lora_rank: Rows of A.
        lora_alpha: Factor on the product, which is divided by the rank.
        lora_layers: Which layers: attention and mlp are the linear layers (or 1x1 convolutions) in
            modules of these names, all is every linear layer and every 1x1 convolution.
    """

    def __init__(
        self,
        *,
        lora_rank: Annotated[int, Ge(1)] = 8,
        lora_alpha: Annotated[float, Gt(0)] = 8.0,
        lora_layers: Literal["all", "attention", "mlp"] = "all",
    ) -> None:
        self._rank, self._scale = lora_rank, lora_alpha / lora_rank
        self._layers = lora_layers

    def targets(self, backbone: nn.Module, image: Tensor) -> list[str]:
        """Return the names of the layers."""
        word = {"all": "", "attention": "attn", "mlp": "mlp"}[self._layers]
        names = [
            name
            for name, module in backbone.named_modules()
            if _is_pointwise(module) and word in name
        ]
        if not names:
            where = f" in modules called {word}" if word else ""
            raise CannotTuneError(f"has no linear layer or 1x1 convolution{where}")
        called = calls_of(backbone, image, names=names)
        if passed_over := [name for name in names if name not in called]:
            raise CannotTuneError(
                f"uses the weight of {passed_over[0]} without calling that layer, so that nothing "
                "can be added; another model.lora_layers may do"
            )
        return names

    def apply(self, backbone: nn.Module, image: Tensor) -> None:
        """Add the products, which alone are trained."""
        for name in self.targets(backbone, image):
            layer = backbone.get_submodule(name)
            layer.add_module("lora", _LowRank(layer, rank=self._rank, scale=self._scale))
            layer.register_forward_hook(_plus_low_rank)


class _LowRank(nn.Module):
    """The product B A times a factor, shaped like a linear layer or a 1x1 convolution."""

    def __init__(self, layer: nn.Module, *, rank: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        if isinstance(layer, nn.Conv2d):
            stride = (layer.stride[0], layer.stride[1])
            self.down: nn.Linear | nn.Conv2d = nn.Conv2d(
                layer.in_channels, rank, 1, stride, bias=False
            )
            self.up: nn.Linear | nn.Conv2d = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        else:
            assert isinstance(layer, nn.Linear)
            self.down = nn.Linear(layer.in_features, rank, bias=False)
            self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what is added to the layer's output."""
        added: Tensor = self.up(self.down(inputs) * self.scale)
        return added


def _is_pointwise(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d) and type(module) in CONVOLUTIONS:
        is_single = module.kernel_size == (1, 1) and module.groups == 1
        return is_single and module.padding in ((0, 0), 0, "same", "valid")
    return type(module) in LINEAR


def _plus_low_rank(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Add to a layer's output the product of that very layer, so that a copy uses its own."""
    added: Tensor = output + layer.get_submodule("lora")(inputs[0])
    return added
