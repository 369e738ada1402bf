"""Pixels that a backbone never reads, as its patches do not divide the images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass
class Patches:
    """How a backbone cuts an image into patches.

    Attributes:
        name: of the model.
        size: height and width of the image.
        sides: height and width of each grid of patches that it is cut into, None for convolutions
            that overlap.
    """

    name: str
    size: tuple[int, int]
    sides: list[tuple[int, int] | None] = field(default_factory=list)

    def remark(self, key: str) -> str | None:
        """Say which pixels are in no patch, and which size has none of them; None if all are in.

        Args:
            key: The config key of the size of the images.
        """
        if not self.sides or None in self.sides:
            return None
        (high, wide) = min(side for side in self.sides if side is not None)
        rows, columns = self.size[0] % high, self.size[1] % wide
        if not rows and not columns:
            return None
        lost = " and ".join(
            f"{number} {what}{'s'[: number != 1]}"
            for number, what in ((rows, "row"), (columns, "column"))
            if number
        )
        read = f"{self.size[0] - rows}x{self.size[1] - columns}"
        fits = [
            -(-side // patch) * patch for side, patch in zip(self.size, (high, wide), strict=True)
        ]
        return (
            f"model.name={self.name}: its patches of {high}x{wide} read {read} of the "
            f"{self.size[0]}x{self.size[1]} pixels; the last {lost} of every image never count; "
            f"images of {fits[0]}x{fits[1]} ({key}) lose none"
        )


@contextlib.contextmanager
def patches_of(backbone: nn.Module, image: Tensor, *, name: str) -> Iterator[Patches]:
    """Watch how a backbone cuts an image that it is shown inside the block.

    A convolution that is given the image itself, with a stride of its kernel's size and no padding,
    cuts patches. Where they do not divide the image, torch drops the rest without a word.

    Args:
        backbone: Images to pooled features.
        image: (1, C, H, W).
        name: Of the backbone, for messages.
    """
    height, width = image.shape[2:]
    found = Patches(name, (height, width))

    def note(module: nn.Module, given: tuple[object, ...], _: object) -> None:
        shown = given[0] if given else None
        if not isinstance(shown, Tensor) or shown.shape[1:] != image.shape[1:]:
            return
        assert isinstance(module, nn.Conv2d)
        kernel, stride = tuple(module.kernel_size), tuple(module.stride)
        is_cut = kernel == stride and stride > (1, 1) and module.padding in ((0, 0), "valid")
        found.sides.append((kernel[0], kernel[1]) if is_cut else None)

    hooks = [m.register_forward_hook(note) for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
