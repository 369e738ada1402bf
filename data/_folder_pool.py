"""From a listing of files to a pool: decoded, with statistics, and with what must be said."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from data._base import DEEPEST, DataError, Decoding, DiskImages, Pool, Size
from data._decode import quiet_pillow
from data._folder import Listing
from data._folder_cache import FolderCache
from data._grey import LOOKED_AT, grey_notes

# Mean and standard deviation of published training sets, as recipes write them.
STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # As in data/dataloader.py of github.com/facebookresearch/classifier-balancing.
    "inaturalist": ((0.466, 0.471, 0.380), (0.195, 0.194, 0.192)),
}


def folder_cache(
    raw_data: Path,
    *,
    size: int | tuple[int, int] | None,
    test_size: int | tuple[int, int] | None,
    crop_ratio: float,
    interpolation: Literal["bilinear", "bicubic"],
    exif_orientation: bool,
    grey_bits: int = DEEPEST,
) -> FolderCache:
    """Return the cache of images that are decoded as the keys of a data set of files say."""
    training = Decoding(
        _size(size),
        interpolation=interpolation,
        exif_orientation=exif_orientation,
        grey_bits=grey_bits,
    )
    tested = replace(training, size=_size(test_size or size), crop_ratio=crop_ratio)
    return FolderCache(raw_data / "cache" / "image_folder", tested, training)


def _size(given: int | tuple[int, int] | None) -> Size | None:
    if given is None:
        return None
    return Size(given, given) if isinstance(given, int) else Size(*given)


def folder_pool(
    listing: Listing,
    cache: FolderCache,
    *,
    limit: float,
    normalize: str,
    title: str,
    contents: Mapping[str, np.ndarray] | None = None,
    verified: str = "",
) -> Pool:
    """Return the images of a listing: decoded in memory maps, or on disk where they are too many.

    Args:
        listing: The files.
        cache: Where decoded images are kept.
        limit: Bytes that they may fill.
        normalize: ``train``, ``weights``, or a key of ``STATISTICS``.
        title: Name of the data set in tables.
        contents: What the files of each split are told apart by; None looks for equal ones unless
            the images stay on disk.
        verified: As of :class:`Pool`.

    Raises:
        DataError: If a file cannot be decoded, sizes differ, or the cache cannot be written.
    """
    names = listing.splits["train"].names
    # A few are looked at: a million paths would fill the memory.
    if cache.decoding.grey_bits == DEEPEST:
        names = names[:: max(1, -(-len(names) // LOOKED_AT))]
    paths = [listing.folder / os.fsdecode(name) for name in names]
    with quiet_pillow():
        deep = grey_notes(paths, grey_bits=cache.decoding.grey_bits)
        parts = cache.parts(listing, limit=limit)
    if contents is None and not isinstance(parts["train"].images, DiskImages):
        contents = cache.contents(listing)
    parts = {
        split: replace(
            part,
            groups=listing.splits[split].groups,
            contents=None if contents is None else contents[split],
        )
        for split, part in parts.items()
    }
    mean, std = STATISTICS.get(normalize, (None, None))
    if isinstance(parts["train"].images, DiskImages) and normalize == "train":
        raise DataError(
            "data.normalize=train needs decoded images, and these do not fit into data.cache_gb: "
            "raise it or set data.normalize=imagenet"
        )
    return Pool(
        train=parts["train"],
        test=parts["test"],
        val=parts.get("val"),
        class_names=listing.class_names,
        title=title,
        mean=mean,
        std=std,
        notes=(*listing.notes, *deep),
        verified=verified,
    )
