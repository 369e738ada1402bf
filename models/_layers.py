"""The layers of a backbone, as timm counts them."""

from __future__ import annotations

from typing import Any, NamedTuple

from timm.models._manipulate import group_with_matcher
from torch import nn


class Layers(NamedTuple):
    """The layer of each parameter of a backbone, from 0 at the image, and that of its head."""

    of: dict[str, int]
    head: int


def layers_of(backbone: nn.Module) -> Layers | None:
    """Return the layers by timm's ``group_matcher``; None for a backbone without one."""
    matcher: Any = getattr(backbone, "group_matcher", None)
    if matcher is None:
        return None
    # timm numbers a classifier together with the layers below it: its name stands for the head.
    classifier = getattr(backbone, "pretrained_cfg", {}).get("classifier") or "head"
    first = classifier if isinstance(classifier, str) else classifier[0]
    names = [*(name for name, _ in backbone.named_parameters()), f"{first}.weight"]
    numbered = group_with_matcher(
        ((name, None) for name in names), matcher(coarse=False), reverse=True
    )
    head = numbered[names.pop()]
    return Layers({name: numbered[name] for name in names}, head)
