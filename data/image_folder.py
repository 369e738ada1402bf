"""A folder of images of one's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Interval, Lt

from data._base import DataError, DiskImages, Labelled, Pool
from data._decode import quiet_pillow
from data._folder import list_folder, readable
from data._folder_cache import FolderCache
from data._folder_groups import FolderGroups, find_groups
from data._grey import grey_notes
from data._near_duplicates import near_notes

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageFolder:
    """Images in train/<class>/*, test/<class>/* and optionally val/<class>/*, as 8-bit RGB.

    Classes are ordered by name. Images are decoded once into a memory-mapped cache; when they
    need more than ``cache_gb`` they stay on disk and worker processes decode them. A folder val
    may be called valid or validation, too.

    Args:
        path: The folder; a relative one is looked for here and then below the data root.
        size: Side in pixels that images are resized to (shorter side, then the centre square);
            by default they are taken as they are and must all have one size.
        cache_gb: Gigabytes of decoded images that may be cached; beyond it they stay on disk.
        normalize: Mean and standard deviation of the training images, or of ImageNet.
        title: Name of the data set in tables; by default the name of the folder.
        test_fraction: Share of each class that is drawn as the test split, for a folder without
            test/: from train/<class>/*, or from <class>/* where there is no train/ either.
        allow_overlap: Go on although the same image, byte for byte, or images of one group are in
            two splits.
        grey_bits: Bits in use of 16-bit greyscale files, of which the upper 8 are kept; X-rays
            often fill 12.
        group_by: Which images belong together (a patient, a track) and must be in one split:
            folder, for train/<class>/<group>/*; else a regular expression that is searched in the
            name of each file, whose first bracket names the group.
        near_duplicates: Count images of two splits that look alike, as resized, re-compressed or
            brightened copies do: bits in which their 64-bit difference hashes may differ, such as
            4; null does not look.

    Raises:
        DataError: If ``path`` is missing, or is not a folder of that form, or an image is in two
            splits.
    """

    # A val/ folder, which only loading can find, makes a validation split without any key.
    may_bring_validation: ClassVar[bool] = True
    # Only the user knows whether left and right matter, so runs say that images are mirrored.
    may_have_sides: ClassVar[bool] = True
    shared_defaults: ClassVar[dict[str, object]] = {
        "imbalance.kind": "none",
        "validation.per_class": None,
        "validation.fraction": 0.1,
        "augment.flip": True,
    }

    def __init__(
        self,
        root: Path,
        *,
        path: str | None = None,
        size: Annotated[int, Ge(1)] | None = None,
        cache_gb: Annotated[float, Ge(0)] = 4.0,
        normalize: Literal["train", "imagenet"] = "train",
        title: str = "",
        test_fraction: Annotated[float, Gt(0), Lt(1)] | None = None,
        allow_overlap: bool = False,
        grey_bits: Annotated[int, Interval(ge=8, le=16)] = 16,
        group_by: str | None = None,
        near_duplicates: Annotated[int, Interval(ge=0, le=16)] | None = None,
    ) -> None:
        if not path:
            raise DataError("data.path is missing: data.name=image_folder needs a folder of images")
        self._folder = _find(root, path)
        self._cache = FolderCache(root / "cache" / "image_folder", size, grey_bits)
        self._cache_bytes = cache_gb * 1e9
        self._normalize = normalize
        self._title = title or self._folder.name
        self._test_fraction = test_fraction
        self._allow_overlap = allow_overlap
        self._group_by = group_by
        self._near_bits = near_duplicates

    def files(self) -> list[Path]:
        """Return the image files of all splits."""
        listing = list_folder(
            self._folder, test_fraction=self._test_fraction, group_by=self._group_by
        )
        names = [name for files in listing.splits.values() for name in files.names]
        return [self._folder / os.fsdecode(name) for name in names]

    def load(self) -> Pool:
        """Return the images of the folder.

        Raises:
            DataError: If a file cannot be decoded, image sizes differ, an image is in two splits,
                or the cache cannot be written.
        """
        listing = list_folder(
            self._folder, test_fraction=self._test_fraction, group_by=self._group_by
        )
        duplicates = self._cache.duplicates(listing)
        groups = FolderGroups({}, ())
        if self._group_by is not None:
            names = {split: files.names for split, files in listing.splits.items()}
            groups = find_groups(names, self._group_by)
        self._check_overlaps(duplicates.overlaps, groups.overlaps)
        paths = [self._folder / os.fsdecode(name) for name in listing.splits["train"].names]
        with quiet_pillow():
            deep = grey_notes(paths, grey_bits=self._cache.grey_bits)
            images = self._cache.images(listing, limit=self._cache_bytes)
        parts = {
            name: Labelled(
                own,
                listing.splits[name].targets,
                is_resized=self._cache.size is not None and not isinstance(own, DiskImages),
                groups=groups.numbers.get(name),
            )
            for name, own in images.items()
        }
        near = []
        if self._near_bits is not None:
            looked_at = {name: part.images for name, part in parts.items()}
            near = near_notes(looked_at, most_bits=self._near_bits)
        is_imagenet = self._normalize == "imagenet"
        if isinstance(images["train"], DiskImages) and not is_imagenet:
            raise DataError(
                "data.normalize=train needs decoded images, and these need more than "
                f"data.cache_gb={self._cache_bytes / 1e9:g}: raise it or set "
                "data.normalize=imagenet"
            )
        return Pool(
            train=parts["train"],
            test=parts["test"],
            val=parts.get("val"),
            class_names=listing.class_names,
            title=self._title,
            mean=_IMAGENET_MEAN if is_imagenet else None,
            std=_IMAGENET_STD if is_imagenet else None,
            notes=(*listing.notes, *deep, *duplicates.overlaps, *duplicates.repeats, *near),
        )

    def _check_overlaps(self, images: tuple[str, ...], groups: tuple[str, ...]) -> None:
        """Refuse what is in two splits unless that is allowed, and to allow what is not there."""
        if images and not self._allow_overlap:
            raise DataError(
                f"data.path: {self._folder} has the same images in two splits: "
                f"{'; '.join(images)}; remove the copies, or set data.allow_overlap=true"
            )
        if groups and not self._allow_overlap:
            raise DataError(
                f"data.group_by={self._group_by}: {self._folder} has images of one group in two "
                f"splits: {'; '.join(groups)}; move each group to one split, or set "
                "data.allow_overlap=true"
            )
        if self._allow_overlap and not (images or groups):
            raise DataError(
                f"data.allow_overlap=true: has no effect, no image of {self._folder} is in two "
                "splits; leave it out"
            )


def _find(root: Path, path: str) -> Path:
    candidates = [Path(path).expanduser().absolute()]
    if not Path(path).expanduser().is_absolute():
        candidates.append(root / path)
    for folder in candidates:
        with readable(folder):
            if folder.is_dir():
                return folder
    places = " and ".join(str(folder) for folder in candidates)
    raise DataError(f"data.path={path} is not a folder: looked for {places}")
