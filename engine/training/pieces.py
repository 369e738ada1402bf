"""A batch in pieces, where it does not go through the model at once."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Piece(NamedTuple):
    """A part of a batch that goes through the model at once.

    ``targets`` are what the loss is given, mixed where there is mixing; ``labels`` (N,) are the
    images' own.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    share: Tensor | None


def piece_sizes(num_images: int, num_pieces: int) -> list[int]:
    """Return the images in each piece of a batch, as ``Tensor.chunk`` but for a lone last image.

    It joins the piece before: batch normalisation has no statistics of one image.

    >>> piece_sizes(7, 3), piece_sizes(8, 3), piece_sizes(3, 3)
    ([3, 4], [3, 3, 2], [1, 1, 1])
    """
    size = -(-num_images // num_pieces)
    sizes = [min(size, num_images - start) for start in range(0, num_images, size)]
    if len(sizes) > 1 and size > sizes[-1] == 1:
        sizes[-2:] = [size + 1]
    return sizes
