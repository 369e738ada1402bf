"""A folder of images of one's own."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Interval, Le, Lt

from data._base import DataError, Pool, Refuse, refuse
from data._copies import across_notes, told_files
from data._duplicates import compare_readable
from data._folder import Compare, Listing, find_folder, list_folder
from data._folder_groups import group_names, shared_groups
from data._folder_pool import folder_cache, folder_pool


class ImageFolder:
    """Images in train/<class>/*, test/<class>/* and optionally val/<class>/*, as 8-bit RGB.

    Classes are ordered by name. Images are decoded once into a memory-mapped cache, as they are
    tested; when they need more than ``cache_gb`` they stay on disk and worker processes decode
    them, and so they do with training images that are cropped at random from the whole image
    (``data.augment.resized_crop``). A folder val may be called valid or validation, too.

    Args:
        path: The folder; a relative one is looked for here and then below the data root.
        size: Side in pixels that images are resized to (shorter side, then the centre square), or
            height and width, as in [24, 40]; by default they are taken as they are and must all
            have one size.
        test_size: The same for validation and test images; by default that of training.
        crop_ratio: Validation and test images are resized to their size divided by this, of which
            the centre is kept: 0.875 takes 224 of 256 pixels.
        interpolation: How images are resized and random crops are, antialiased.
        exif_orientation: Turn photographs upright as their EXIF data say; by default pixels stay
            as stored.
        cache_gb: Gigabytes of decoded images that may be cached; beyond it they stay on disk.
        normalize: Mean and standard deviation of the training images, of ImageNet, or those that
            the pretrained weights of model.name were made with.
        title: Name of the data set in tables; by default the name of the folder.
        test_fraction: Share of each class that is drawn as the test split, for a folder without
            test/: from train/<class>/*, or from <class>/* where there is no train/ either.
        allow_overlap: Go on although the same image, byte for byte, or images of one group are in
            two splits. With data.drop_duplicates they are then left out of training.
        grey_bits: Bits in use of 16-bit greyscale files, of which the upper 8 are kept; X-rays
            often fill 12.
        group_by: Which images belong together (a patient, a track) and must be in one split:
            folder, for train/<class>/<group>/*; else a regular expression that is searched in the
            name of each file, whose first bracket, or without brackets all of it, names the group.

    Raises:
        DataError: If ``path`` is missing, or is not a folder of that form, or an image is in two
            splits.
    """

    # A val/ folder, which only loading can find, makes a validation split without any key.
    may_bring_validation: ClassVar[bool] = True
    # Only the user knows whether left and right matter, so runs say that images are mirrored.
    may_have_sides: ClassVar[bool] = True
    # Runs on several folders are kept apart by their names.
    files_runs_under: ClassVar[str] = "path"
    shared_defaults: ClassVar[dict[str, object]] = {
        "imbalance.kind": "none",
        "validation.per_class": None,
        "validation.fraction": 0.1,
        "augment.flip": True,
    }

    def __init__(  # noqa: PLR0913 - each is a key
        self,
        root: Path,
        *,
        path: str | None = None,
        size: Annotated[int, Ge(1)]
        | tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]]
        | None = None,
        test_size: Annotated[int, Ge(1)]
        | tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]]
        | None = None,
        crop_ratio: Annotated[float, Gt(0), Le(1)] = 1.0,
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        exif_orientation: bool = False,
        cache_gb: Annotated[float, Ge(0)] = 4.0,
        normalize: Literal["train", "imagenet", "weights"] = "train",
        title: str = "",
        test_fraction: Annotated[float, Gt(0), Lt(1)] | None = None,
        allow_overlap: bool = False,
        grey_bits: Annotated[int, Interval(ge=8, le=16)] = 16,
        group_by: str | None = None,
    ) -> None:
        if not path:
            raise DataError("data.path is missing: data.name=image_folder needs a folder of images")
        self._folder = find_folder(root, path, key="data.path")
        self._cache = folder_cache(
            root,
            size=size,
            test_size=test_size,
            crop_ratio=crop_ratio,
            interpolation=interpolation,
            exif_orientation=exif_orientation,
            grey_bits=grey_bits,
        )
        self._cache_bytes = cache_gb * 1e9
        self._normalize = normalize
        self._title = title or self._folder.name
        self._test_fraction = test_fraction
        self._allow_overlap = allow_overlap
        self._group_by = group_by

    def files(self) -> list[Path]:
        """Return the image files of all splits."""
        return self._listing().paths()

    def load(self) -> Pool:
        """Return the images of the folder.

        Raises:
            DataError: If a file cannot be decoded, image sizes differ, an image is in two splits,
                or the cache cannot be written.
        """
        return self.describe(without=(), refuse=refuse)

    def describe(self, *, without: Collection[Path], refuse: Refuse) -> Pool:
        """Return the images of the folder, of which a run may have to be refused.

        Args:
            without: Files to leave out, as they cannot be read.
            refuse: What is done with a sentence about images or groups in two splits.

        Raises:
            DataError: As for :meth:`load`, but for what is refused.
        """

        def compare(listing: Listing) -> dict[str, np.ndarray]:
            return compare_readable(listing, without, self._cache.contents)

        # Where images may be in two splits, test is what the names of files make it.
        listing = self._listing(None if self._allow_overlap else compare).without(without)
        known = {name: own.contents for name, own in listing.splits.items()}
        contents = {name: own for name, own in known.items() if own is not None}
        if len(contents) < len(known):
            contents = self._cache.contents(listing)
        groups: dict[str, np.ndarray] = {}
        if self._group_by is not None:
            groups = {
                split: group_names(files.names, self._group_by)
                for split, files in listing.splits.items()
            }
        overlaps = across_notes(
            {name: told_files(own, contents[name]) for name, own in listing.splits.items()}
        )
        shared = shared_groups(groups)
        self._check_overlaps(overlaps, shared, refuse=refuse)
        # What is in two splits may be among the files that are left out.
        if self._allow_overlap and not (overlaps or shared or without):
            raise DataError(
                f"data.allow_overlap=true: has no effect, no image of {self._folder} is in two "
                "splits; leave it out"
            )
        return folder_pool(
            listing,
            self._cache,
            limit=self._cache_bytes,
            normalize=self._normalize,
            title=self._title,
            contents=contents,
        )

    def _listing(self, compare: Compare | None = None) -> Listing:
        return list_folder(
            self._folder,
            test_fraction=self._test_fraction,
            group_by=self._group_by,
            compare=compare,
        )

    def _check_overlaps(
        self, images: tuple[str, ...], groups: tuple[str, ...], *, refuse: Refuse
    ) -> None:
        """Refuse what is in two splits unless that is allowed."""
        if self._allow_overlap:
            return
        if images:
            refuse(
                f"data.path: {self._folder} has the same images in two splits: "
                f"{'; '.join(images)}; remove the copies, or set data.allow_overlap=true (and "
                "data.drop_duplicates=true to leave them out of training)"
            )
        if groups:
            refuse(
                f"data.group_by={self._group_by}: {self._folder} has images of one group in two "
                f"splits: {'; '.join(groups)}; move each group to one split, or set "
                "data.allow_overlap=true"
            )
