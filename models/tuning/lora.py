"""Low-rank adaptation."""

from __future__ import annotations

import contextlib
import math
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
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
            product = _LowRank(layer, rank=self._rank, scale=self._scale)
            if isinstance(layer, nn.Linear):
                backbone.set_submodule(name, _LowRankLinear(layer, product))
            else:
                layer.add_module("lora", product)
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


class _LowRankLinear(nn.Linear):
    """A linear layer with a low-rank product beside it, computed as one layer.

    Each pass adds the product to the weight first, so that the input goes through one matrix; what
    the product's own gradients need is computed from input and output gradient alone. Beside the
    layer, the product would read its input and write an output of its own in either direction.

    Args:
        layer: Whose weight and bias it takes over, under their names.
        product: What is added.
    """

    def __init__(self, layer: nn.Linear, product: _LowRank) -> None:
        is_biased = layer.bias is not None
        super().__init__(layer.in_features, layer.out_features, bias=is_biased, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.lora = product

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (..., out) of inputs (..., in); under autocast in its type, as a linear layer."""
        device, bias = inputs.device.type, self.bias
        down, up, scale = self.lora.down.weight, self.lora.up.weight, self.lora.scale
        is_cast = torch.is_autocast_enabled(device)
        if is_cast:
            inputs = inputs.to(torch.get_autocast_dtype(device))
        with torch.autocast(device, enabled=False) if is_cast else contextlib.nullcontext():
            found: Tensor = _Merged.apply(inputs, self.weight, bias, down, up, scale)
        return found


class _Merged(torch.autograd.Function):
    """x (W + s B A)^T + b, with gradients of x, A (rank, in) and B (out, rank) alone."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
    ) -> Tensor:
        merged = torch.addmm(weight, up, down, alpha=scale).to(inputs.dtype)
        ctx.save_for_backward(inputs, merged, down, up)
        ctx.scale = scale
        return F.linear(inputs, merged, None if bias is None else bias.to(inputs.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        inputs, merged, down, up = ctx.saved_tensors
        rows, slopes = inputs.flatten(0, -2), gradient.flatten(0, -2)
        of_inputs = gradient @ merged if ctx.needs_input_grad[0] else None
        of_down = (slopes @ up.to(slopes.dtype)).T @ rows
        # Summed over rows with the long side in the result's rows: half the time of the transpose.
        of_up = ((rows @ down.to(rows.dtype).T).T @ slopes).T
        scaled = (ctx.scale * of_down.to(down.dtype), ctx.scale * of_up.to(up.dtype))
        return of_inputs, None, None, *scaled, None


def _is_pointwise(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d) and type(module) in CONVOLUTIONS:
        is_single = module.kernel_size == (1, 1) and module.groups == 1
        return is_single and module.padding in ((0, 0), 0, "same", "valid")
    return type(module) in LINEAR


def _plus_low_rank(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Add to a layer's output the product of that very layer, so that a copy uses its own."""
    added: Tensor = output + layer.get_submodule("lora")(inputs[0])
    return added
