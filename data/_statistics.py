"""Facts computed from images: channel statistics and a hash of their content."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data._base import DataError, DiskImages, Images, Split
from data._decode import decode, decoder_versions, quiet_pillow
from data._folder import readable
from data._progress import of_files
from data._scratch import written_whole

_CHUNK = 4096  # images looked at together
_MANY = 1_000  # images to decode from which on the progress is shown and the digest kept
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
            digest.update(_content(split.identified_by))
    return digest.hexdigest()[:12]


def former_fingerprints(splits: dict[str, Split | None]) -> tuple[str, ...]:
    """Return the fingerprints that earlier versions gave the same splits, as far as they differ.

    They went by pixels wherever images were in memory, and else by the names of files and their
    sizes, or without these.
    """
    every = [own for own in splits.values() if own is not None]
    if all(isinstance(own.images, Tensor) and own.stored is None for own in every):
        return ()
    formers = [
        {name: own and _as_of_old(own, with_sizes=sizes) for name, own in splits.items()}
        for sizes in (True, False)
    ]
    return tuple(dict.fromkeys(map(split_fingerprint, formers)))


def _as_of_old(split: Split, *, with_sizes: bool) -> Split:
    images = split.images
    if not isinstance(images, DiskImages):
        return replace(split, stored=None)
    sizes = images.file_sizes if with_sizes else np.zeros_like(images.file_sizes)
    return replace(split, images=replace(images, digests=None, file_sizes=sizes))


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

    Many images on disk count by name and file size, which needs no second reading of the files; not
    by time stamps, so that a copy of the folder is the same data.
    """
    digest = hashlib.sha256()
    if isinstance(images, DiskImages):
        if images.digests is not None:
            return _pixels_on_disk(images, images.digests)
        names = b"\0".join(images.names.tolist())
        digest.update(names + np.asarray(images.file_sizes, dtype="<i8").tobytes())
        return digest.digest()
    digest.update(str(tuple(images.shape)).encode())
    for chunk in images[:: _stride(images.nbytes)].split(_CHUNK):
        digest.update(chunk.contiguous().numpy())
    return digest.digest()


def _stride(num_bytes: int) -> int:
    return max(1, math.ceil(num_bytes / _HASHED_BYTES))


def _pixels_on_disk(images: DiskImages, kept_in: Path) -> bytes:
    """Hash images on disk as they would be in memory; of many the digest is kept."""
    shape = (len(images), *images.shape)
    looked_at = images.select(np.arange(0, len(images), _stride(math.prod(shape))))
    options = f"{decoder_versions()} {images.decoding} {shape} {content_key(looked_at)}"
    entry = kept_in / f"{hashlib.sha256(options.encode()).hexdigest()[:24]}.pixels"
    with contextlib.suppress(OSError):
        if len(known := (entry / "digest").read_bytes()) == hashlib.sha256().digest_size:
            return known
    digest = hashlib.sha256(str(shape).encode())
    for pixels in decoded(looked_at):
        digest.update(pixels)
    if len(looked_at) < _MANY:
        return digest.digest()
    with (
        contextlib.suppress(DataError),  # no room: it is made again next time
        written_whole(entry, needed=0, is_whole=(entry / "digest").is_file) as scratch,
    ):
        (scratch / "digest").write_bytes(digest.digest())
    return digest.digest()


def decoded(images: DiskImages) -> Iterator[bytes]:
    """Yield the pixels of each image, decoded in threads; show the progress if there are many."""
    paths = map(images.path, range(len(images)))

    def decode_one(path: Path) -> bytes:
        return decode(path, **vars(images.decoding)).numpy().tobytes()

    with quiet_pillow():
        yield from of_files(
            decode_one, paths, total=len(images), doing="reading pixels", least=_MANY
        )
