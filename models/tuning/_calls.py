"""What the modules of a backbone are given and return."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Call(NamedTuple):
    """Shapes of the input and of the output of a module."""

    given: torch.Size
    returned: torch.Size


def calls_of(backbone: nn.Module, image: Tensor, *, names: Iterable[str]) -> dict[str, Call]:
    """Show a backbone one image; return the calls of those modules that are called with a tensor.

    A layer whose weight is used without calling it, as some attention layers use theirs, is not
    among them.
    """
    found: dict[str, Call] = {}

    def record(name: str) -> torch.utils.hooks.RemovableHandle:
        def note(_: nn.Module, given: tuple[object, ...], returned: object) -> None:
            if given and isinstance(given[0], Tensor) and isinstance(returned, Tensor):
                found[name] = Call(given[0].shape, returned.shape)

        return backbone.get_submodule(name).register_forward_hook(note)

    handles = [record(name) for name in names]
    modes = [module for module in backbone.modules() if module.training]
    backbone.eval()
    try:
        with torch.no_grad():
            backbone(image)
    finally:
        for handle in handles:
            handle.remove()
        for module in modes:
            module.training = True
    return found
