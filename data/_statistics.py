"""Facts computed from images: channel statistics and a hash of their content."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data._base import DiskImages, Images, Split
from data._folder import readable

_CHUNK = 4096  # images looked at together
_HASHED_BYTES = 128 * 2**20


class ChannelStatistics(NamedTuple):
    """Mean and standard deviation of each channel, of pixel values in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def channel_statistics(images: Tensor) -> ChannelStatistics:
    """Compute exact mean and standard deviation (over all pixels) of uint8 (N, C, H, W).

    They come from a histogram of the 256 values, so neither the number of images nor the order
    of summation shows in them. A constant channel gets standard deviation 1, so that
    normalising by it changes nothing.
    """
    histogram = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for chunk in images.split(_CHUNK):
        for channel, counts in enumerate(histogram):
            counts += torch.bincount(chunk[:, channel].flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 255
    share = histogram.double() / histogram.sum(1, keepdim=True)
    mean = share @ values
    std = (share * (values - mean[:, None]) ** 2).sum(1).sqrt()
    std = torch.where((histogram > 0).sum(1) > 1, std, 1.0)
    return ChannelStatistics(tuple(mean.tolist()), tuple(std.tolist()))


def split_fingerprint(splits: dict[str, Split | None]) -> str:
    """Return 12 hex digits of SHA-256 over each split's index, targets and image content."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(name.encode())
        if split is not None:
            digest.update(split.index.numpy().astype("<i8").tobytes())
            digest.update(split.targets.numpy().astype("<i8").tobytes())
            digest.update(_content(split.images))
    return digest.hexdigest()[:12]


def content_key(images: Images) -> str:
    """Return a hash for the name of a file that is made of images, and of no others.

    Unlike a split's fingerprint it covers every byte in memory and, of images on disk, the time of
    last change: where these are replaced by others, something made of the old ones must not pass
    for theirs, while making it again from a mere copy of the folder costs only time.

    Raises:
        DataError: If a file on disk is missing.
    """
    digest = hashlib.sha256()
    if isinstance(images, DiskImages):
        for position, name in enumerate(images.names.tolist()):
            with readable(path := images.path(position)):
                facts = path.stat()
            digest.update(name + f"\0{facts.st_size} {facts.st_mtime_ns}\0".encode())
        return digest.hexdigest()
    digest.update(str(tuple(images.shape)).encode())
    for chunk in images.split(_CHUNK):
        digest.update(chunk.contiguous().numpy())
    return digest.hexdigest()


def _content(images: Images) -> bytes:
    """Hash images: every byte up to 128 MiB, beyond that whole images evenly spaced.

    Images on disk count by name and file size, which needs no second reading of the files; not
    by time stamps, so that a copy of the folder is the same data.
    """
    digest = hashlib.sha256()
    if isinstance(images, DiskImages):
        names = b"\0".join(images.names.tolist())
        digest.update(names + np.asarray(images.file_sizes, dtype="<i8").tobytes())
        return digest.digest()
    digest.update(str(tuple(images.shape)).encode())
    stride = max(1, math.ceil(images.nbytes / _HASHED_BYTES))
    for chunk in images[::stride].split(_CHUNK):
        digest.update(chunk.contiguous().numpy())
    return digest.digest()
