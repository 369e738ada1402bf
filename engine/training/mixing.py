"""Mixup and CutMix by timm, for batches of any size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def mixed(mix: Any, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Apply timm's Mixup to a batch; it needs pairs, so the last image of an odd batch is left."""
    even = len(images) // 2 * 2
    lone = torch.nn.functional.one_hot(targets[even:], mix.num_classes).to(images.dtype)
    if even == 0:
        return images, lone
    mixed_images, mixed_targets = mix(images[:even].clone(), targets[:even])
    return (
        torch.cat([mixed_images, images[even:]]),
        torch.cat([mixed_targets.to(images.dtype), lone]),
    )
