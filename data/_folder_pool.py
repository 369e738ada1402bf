"""From a listing of files to a pool: decoded, with statistics, and with what must be said."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from data._base import DEEPEST, DataError, Decoding, DiskImages, Labelled, Pool, Size
from data._decode import quiet_pillow
from data._duplicates import compare_readable
from data._folder import Listing
from data._folder_cache import FolderCache
from data._grey import LOOKED_AT, grey_notes

# Mean and standard deviation of published training sets, as recipes write them.
STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # As in data/dataloader.py of github.com/facebookresearch/classifier-balancing.
    "inaturalist": ((0.466, 0.471, 0.380), (0.195, 0.194, 0.192)),
}
# Bytes of decoded images up to which files are compared and splits are fingerprinted by pixels,
# wherever the images are: what data.cache_gb holds by default. Beyond that reading all files, or
# decoding some of them, takes too long, and names stand for images.
_MOST_LOOKED_AT = 4e9


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
    has_facts: bool = True,
    verified: str = "",
) -> Pool:
    """Return the images of a listing: decoded in memory maps, or on disk where they are too many.

    Where they are changes nothing of the splits that are drawn of them, nor their fingerprint.

    Args:
        listing: The files.
        cache: Where decoded images are kept.
        limit: Bytes that they may fill.
        normalize: ``train``, ``weights``, or a key of ``STATISTICS``.
        title: Name of the data set in tables.
        contents: What the files of each split are told apart by; None looks for equal ones unless
            there are too many.
        has_facts: Whether the sizes of files count; false where there are too many to ask for each.
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
        total = sum(
            part.images.nbytes for part in parts.values() if isinstance(part.images, Tensor)
        )
        is_looked_at = has_facts and (total or cache.num_bytes(listing)) <= _MOST_LOOKED_AT
        if contents is None and is_looked_at:
            known = {
                s: own.contents for s, own in listing.splits.items() if own.contents is not None
            }
            contents = known if len(known) == len(parts) else cache.contents(listing)
    parts = {
        split: replace(
            _by_pixels(part, cache)
            if is_looked_at
            else _by_names(part, cache.on_disk(listing, split), with_sizes=has_facts),
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
        may_share_groups=True,  # a listing of files has been looked at
    )


def may_be_looked_at(num_images: int, size: Size | None) -> bool:
    """Return whether so many images may be few enough; of unknown size they may."""
    return size is None or num_images * 3 * size.height * size.width <= _MOST_LOOKED_AT


def contents_of_few(
    listing: Listing, cache: FolderCache, *, without: Collection[Path]
) -> dict[str, np.ndarray] | None:
    """Return what the files of each split are told apart by, None where there are too many.

    Args:
        listing: The files.
        cache: Where it is kept which files are equal.
        without: Those of them that cannot be read.

    Raises:
        DataError: If another file cannot be read.
    """
    if cache.num_bytes(listing.without(without)) > _MOST_LOOKED_AT:
        return None
    return compare_readable(listing, without, cache.contents)


def _by_pixels(part: Labelled, cache: FolderCache) -> Labelled:
    """Return images that are fingerprinted by their pixels, be they on disk."""
    if not isinstance(part.images, DiskImages):
        return part
    return replace(part, images=replace(part.images, digests=cache.folder))


def _by_names(part: Labelled, files: DiskImages, *, with_sizes: bool) -> Labelled:
    """Return images that are fingerprinted by the names of their files, be they in memory."""
    if not with_sizes:
        files = replace(files, file_sizes=np.zeros_like(files.file_sizes))
    if isinstance(part.images, DiskImages):
        return replace(part, images=files)
    return replace(part, stored=files)
