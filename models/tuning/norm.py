"""Normalisation layers."""

from __future__ import annotations

from torch import Tensor, nn

from ._base import CannotTuneError, Tuning


class Norm(Tuning):
    """Scale, shift and statistics of every normalisation layer (Frankle et al. 2021).

    "Training BatchNorm and Only BatchNorm: On the Expressive Power of Random Features in CNNs".
    """

    def targets(self, backbone: nn.Module, image: Tensor) -> list[str]:
        """Return the names of the parameters that normalisation layers hold themselves."""
        del image
        found = [
            f"{place}.{name}" if place else name
            for place, module in backbone.named_modules()
            if any("norm" in base.__name__.lower() for base in type(module).mro())
            for name, _ in module.named_parameters(recurse=False)
        ]
        if not found:
            raise CannotTuneError("has no normalisation layer with parameters")
        return found
