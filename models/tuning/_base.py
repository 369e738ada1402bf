"""What a way of tuning is."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

# Children that a way of tuning adds to modules of the backbone.
ADDED = ("lora", "adapter", "prompt")


class CannotTuneError(ValueError):
    """A backbone lacks what a way of tuning trains; the message goes on after the model's name."""


class Tuning:
    """One way to train a part of a backbone, or a small part added to it."""

    def targets(self, backbone: nn.Module, image: Tensor) -> list[str]:
        """Return the names of the parameters that are trained, or of the modules that are added to.

        Args:
            backbone: Images to pooled features; it is left as it is.
            image: A blank image (1, C, H, W), for what only a forward pass can tell.

        Raises:
            CannotTuneError: There are none.
        """
        raise NotImplementedError

    def apply(self, backbone: nn.Module, image: Tensor) -> None:
        """Let the targets of a frozen backbone train.

        Raises:
            CannotTuneError: There are none.
        """
        train_parameters(backbone, self.targets(backbone, image))


def train_parameters(backbone: nn.Module, names: Iterable[str]) -> None:
    """Let the parameters of these names take gradients."""
    for name in names:
        backbone.get_parameter(name).requires_grad_(True)


def is_added(key: str) -> bool:
    """Return whether a key of a state dict belongs to what a way of tuning has added."""
    return any(part in ADDED for part in key.split("."))
