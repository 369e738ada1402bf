"""From a listing of files to a pool: decoded, with statistics, and with what must be said."""

from __future__ import annotations

import os
from collections.abc import Sequence

from data._base import DataError, DiskImages, Labelled, Pool
from data._decode import DEEPEST, quiet_pillow
from data._folder import Listing
from data._folder_cache import FolderCache
from data._grey import LOOKED_AT, grey_notes

# Mean and standard deviation of published training sets, as recipes write them.
STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # As in data/dataloader.py of github.com/facebookresearch/classifier-balancing.
    "inaturalist": ((0.466, 0.471, 0.380), (0.195, 0.194, 0.192)),
}


def folder_pool(
    listing: Listing,
    cache: FolderCache,
    *,
    limit: float,
    normalize: str,
    title: str,
    notes: Sequence[str] = (),
    verified: str = "",
) -> Pool:
    """Return the images of a listing: decoded in memory maps, or on disk where they are too many.

    Args:
        listing: The files.
        cache: Where decoded images are kept.
        limit: Bytes that they may fill.
        normalize: ``train``, or a key of ``STATISTICS``.
        title: Name of the data set in tables.
        notes: What is to be said after the notes of the listing.
        verified: As of :class:`Pool`.

    Raises:
        DataError: If a file cannot be decoded, sizes differ, or the cache cannot be written.
    """
    names = listing.splits["train"].names
    if cache.grey_bits == DEEPEST:  # a few are looked at, and a million paths fill the memory
        names = names[:: max(1, -(-len(names) // LOOKED_AT))]
    paths = [listing.folder / os.fsdecode(name) for name in names]
    with quiet_pillow():
        deep = grey_notes(paths, grey_bits=cache.grey_bits)
        images = cache.images(listing, limit=limit)
    parts = {
        name: Labelled(
            own,
            listing.splits[name].targets,
            is_resized=cache.size is not None and not isinstance(own, DiskImages),
        )
        for name, own in images.items()
    }
    mean, std = STATISTICS.get(normalize, (None, None))
    if isinstance(images["train"], DiskImages) and mean is None:
        raise DataError(
            "data.normalize=train needs decoded images, and these need more than "
            f"data.cache_gb={limit / 1e9:g}: raise it or set data.normalize=imagenet"
        )
    return Pool(
        train=parts["train"],
        test=parts["test"],
        val=parts.get("val"),
        class_names=listing.class_names,
        title=title,
        mean=mean,
        std=std,
        notes=(*listing.notes, *deep, *notes),
        verified=verified,
    )
