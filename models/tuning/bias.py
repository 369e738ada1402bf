"""Biases."""

from __future__ import annotations

from torch import Tensor, nn

from ._base import CannotTuneError, Tuning


class Bias(Tuning):
    """Every bias, those of normalisation layers among them (Zaken et al. 2022, BitFit).

    The statistics of batch normalisation rest, as its scale does.
    """

    def targets(self, backbone: nn.Module, image: Tensor) -> list[str]:
        """Return the names of the biases."""
        del image
        found = [name for name, _ in backbone.named_parameters() if name.endswith("bias")]
        if not found:
            raise CannotTuneError("has no bias")
        return found
