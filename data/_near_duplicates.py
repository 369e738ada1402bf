"""Images that look alike though their bytes differ: resized, re-compressed, brightened copies."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from data._base import Images
from data._decode import decode, quiet_pillow
from data._progress import of_files

_ROWS, _COLUMNS = 8, 9
_CHUNK = 4096  # images hashed together
_PAIRS = 2**23  # hashes compared together


class NearPairs(NamedTuple):
    """Which images of one list look like one of another.

    Args:
        first: (M,) position of the likest image in the first list, the earliest of equals.
        second: (M,) ascending position in the second list.
        bits: (M,) bits that differ.
    """

    first: np.ndarray
    second: np.ndarray
    bits: np.ndarray


def difference_hashes(images: Tensor) -> np.ndarray:
    """Return a 64-bit hash (N,) uint64 of each image, uint8 (N, C, H, W).

    An image is resized to 8 rows of 9 grey values; a bit says whether a value is below the one to
    its right ("dHash", Krawetz 2013). Brightness, contrast, size and compression hardly change it,
    mirroring and cropping do. On images without any structure it means little.
    """
    shifts = np.arange(64, dtype=np.uint64)
    found = []
    for chunk in images.split(_CHUNK):
        grey = chunk.to(torch.float32).mean(1, keepdim=True)
        size = (_ROWS, _COLUMNS)
        small = interpolate(grey, size, mode="bilinear", antialias=True, align_corners=False)[:, 0]
        bits = (small[:, :, :-1] < small[:, :, 1:]).flatten(1).numpy().astype(np.uint64)
        found.append((bits << shifts).sum(1, dtype=np.uint64))
    return np.concatenate(found)


def image_hashes(images: Images) -> np.ndarray:
    """Return a 64-bit hash (N,) uint64 of each image.

    Images on disk are decoded in threads as they are tested, so that they have the hashes that
    they would have in memory.

    Raises:
        DataError: If a file cannot be decoded.
    """
    if isinstance(images, Tensor):
        return difference_hashes(images)
    options = vars(images.decoding)
    paths = [images.path(position) for position in range(len(images))]

    def hash_of(path: Path) -> np.ndarray:
        return difference_hashes(decode(path, **options)[None])

    with quiet_pillow():
        return np.concatenate(list(of_files(hash_of, paths, total=len(paths), doing="hashing")))


def near_pairs(first: np.ndarray, second: np.ndarray, *, most_bits: int) -> NearPairs:
    """Find the images of the second list that are near one of the first.

    Args:
        first: (N,) hashes.
        second: (M,) hashes.
        most_bits: Bits that may differ.
    """
    likest, differing = [], []
    step = max(1, _PAIRS // len(first))
    for start in range(0, len(second), step):
        bits = np.bitwise_count(second[start : start + step, None] ^ first)
        likest.append(bits.argmin(1))
        differing.append(bits.min(1))
    where, bits = np.concatenate(likest), np.concatenate(differing)
    near = np.flatnonzero(bits <= most_bits)
    return NearPairs(where[near], near, bits[near].astype(np.int64))
