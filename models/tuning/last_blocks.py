"""The last blocks."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from models._layers import layers_of

from ._base import CannotTuneError, Tuning


class LastBlocks(Tuning):
    """The last blocks as timm counts layers, and all that comes after them.

    Args:
        num_blocks: How many.
    """

    def __init__(self, *, num_blocks: Annotated[int, Ge(1)] = 1) -> None:
        self._num_blocks = num_blocks

    def targets(self, backbone: nn.Module, image: Tensor) -> list[str]:
        """Return the names of the parameters of these blocks."""
        del image
        layers = layers_of(backbone)
        if layers is None:
            raise CannotTuneError("does not say what its blocks are")
        most = len({layer for layer in layers.of.values() if layer < layers.head}) - 1
        if self._num_blocks > most:
            raise CannotTuneError(
                f"has {most} blocks above its first layer, set model.num_blocks to {most} or less"
            )
        first = layers.head - self._num_blocks
        return [name for name, layer in layers.of.items() if layer >= first]
