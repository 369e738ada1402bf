"""AdaptFormer."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor, nn

from ._base import CannotTuneError, Tuning
from ._calls import Call, calls_of


class Adapter(Tuning):
    """A thin second branch beside each MLP (Chen et al. 2022, AdaptFormer, eq. 3 and 4).

    MLP(LN(x)) becomes MLP(LN(x)) + scale * W_up ReLU(W_down LN(x)). It starts at zero.

    Args:
        adapter_width: Hidden units of the branch.
        adapter_scale: Factor on the branch.
    """

    def __init__(
        self,
        *,
        adapter_width: Annotated[int, Ge(1)] = 64,
        adapter_scale: Annotated[float, Gt(0)] = 0.1,
    ) -> None:
        self._width, self._scale = adapter_width, adapter_scale

    def targets(self, backbone: nn.Module, image: Tensor) -> list[str]:
        """Return the names of the MLPs that keep the shape (..., D) of their input."""
        return list(self._sizes(backbone, image))

    def apply(self, backbone: nn.Module, image: Tensor) -> None:
        """Add the branches, which alone are trained."""
        for name, size in self._sizes(backbone, image).items():
            mlp = backbone.get_submodule(name)
            mlp.add_module("adapter", _Branch(size, width=self._width, scale=self._scale))
            mlp.register_forward_hook(_plus_branch)

    def _sizes(self, backbone: nn.Module, image: Tensor) -> dict[str, int]:
        """Return D of each MLP, by name."""
        mlps = {
            name: module
            for name, module in backbone.named_modules()
            if name.rpartition(".")[2] == "mlp"
        }
        called = calls_of(backbone, image, names=mlps)
        found = {
            name: call.given[-1]
            for name, call in called.items()
            if _is_over_features(mlps[name], call)
        }
        if not found:
            raise CannotTuneError("has no MLP of linear layers over features (..., D)")
        return found


class _Branch(nn.Module):
    """Two thin layers, as the authors' code begins them: W_up and both biases zero."""

    def __init__(self, size: int, *, width: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.down, self.up = nn.Linear(size, width), nn.Linear(width, size)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what is added to the MLP's output."""
        added: Tensor = self.up(self.down(inputs).relu()) * self.scale
        return added


def _is_over_features(mlp: nn.Module, call: Call) -> bool:
    first = next((module for module in mlp.modules() if isinstance(module, nn.Linear)), None)
    return first is not None and first.in_features == call.given[-1] and call.given == call.returned


def _plus_branch(mlp: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Add to an MLP's output the branch of that very MLP, so that a copy uses its own."""
    added: Tensor = output + mlp.get_submodule("adapter")(inputs[0])
    return added
