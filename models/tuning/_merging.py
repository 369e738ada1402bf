"""Low-rank products merged into the weights that they are added to."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def merged(state: Mapping[str, Tensor], *, scale: float) -> dict[str, Tensor]:
    """Return a state dict with every product added to its weight, under the names of timm.

    Args:
        state: Of a model with low-rank products.
        scale: ``lora_alpha / lora_rank``.
    """
    found = {key: value for key, value in state.items() if ".lora." not in key}
    for key, down in state.items():
        layer, is_down, _ = key.partition(".lora.down.weight")
        if is_down:
            up, weight = state[f"{layer}.lora.up.weight"], state[f"{layer}.weight"]
            product = up.flatten(1).double() @ down.flatten(1).double()
            found[f"{layer}.weight"] = (weight.double() + scale * product.reshape(weight.shape)).to(
                weight.dtype
            )
    return found
