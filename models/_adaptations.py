"""What timm makes of weights that were trained for other images or classes, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

NAMES_SHOWN = 3


def adaptations(state: Mapping[str, Tensor], model: nn.Module, *, name: str) -> Iterator[str]:
    """Say what of a file was left out, summed or resampled for a model that it was loaded into.

    Args:
        state: The tensors of the file.
        model: A backbone of timm, without classifier.
        name: Of the model.
    """
    config: Mapping[str, Any] = getattr(model, "pretrained_cfg", {})
    own = model.state_dict()
    heads = _names(config.get("classifier"))
    for head in heads:
        if (weight := state.get(f"{head}.weight")) is not None:
            yield f"its classifier of {len(weight):,} classes ({head}) is left out"
    for conv in _names(config.get("first_conv")):
        key = f"{conv}.weight"
        if key in state and key in own and state[key].ndim == own[key].ndim == 4:
            before, now = state[key].shape[1], own[key].shape[1]
            if before != now:
                how = "summed to one" if now == 1 else f"repeated to {now} and scaled"
                yield f"the {before} channels of its first convolution ({conv}) are {how}"
    if "pos_embed" in state and "pos_embed" in own:
        theirs, ours = (found["pos_embed"].shape for found in (state, own))
        if theirs != ours:
            yield f"its {theirs[-2]} position embeddings are resampled to {ours[-2]}"
    placed = [key for key in state if key in own]
    rest = [k for k in state if k not in own and not k.startswith(tuple(f"{h}." for h in heads))]
    if rest and 2 * len(placed) > len(own):  # else timm has translated the names
        shown = ", ".join(rest[:NAMES_SHOWN]) + (", ..." if len(rest) > NAMES_SHOWN else "")
        yield f"{len(rest)} of its tensors have no place in {name} and are left out ({shown})"


def of_deeper_model(state: Mapping[str, Tensor], model: nn.Module) -> str | None:
    """Return a tensor of a file that is of a block which a model does not have; None if none is.

    Args:
        state: The tensors of the file.
        model: That all of its own were found in.
    """
    modules = dict(model.named_modules())
    for key in state:
        parts = key.split(".")
        for place, part in enumerate(parts[:-1]):
            above, name = ".".join(parts[:place]), ".".join(parts[: place + 1])
            is_block = isinstance(modules.get(above), nn.Sequential | nn.ModuleList)
            if is_block and part.isdigit() and name not in modules:
                return key
    return None


def _names(value: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())
