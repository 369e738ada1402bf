"""The head alone."""

from __future__ import annotations

from torch import Tensor, nn

from ._base import Tuning


class Head(Tuning):
    """The head alone, on a backbone that stays as it is (linear probing)."""

    def targets(self, backbone: nn.Module, image: Tensor) -> list[str]:
        """Return nothing: the backbone is left alone."""
        del backbone, image
        return []
