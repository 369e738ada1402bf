"""Images that lists name: ImageNet-LT, Places-LT, iNaturalist 2018, and lists of one's own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Interval, Le, Lt

from data._base import DataError, Pool, Refuse, expanded, refuse
from data._folder import Listing, find_folder, readable
from data._folder_pool import contents_of_few, folder_cache, folder_pool, may_be_looked_at
from data._list_file import ListFile, read_list
from data._lists import check_lists


class ImageList:
    """Images that lists name, one file a line with its label, as 8-bit RGB.

    A list is text (``path label`` on each line), a table with named columns (.csv, .tsv), or JSON
    (an entry an image). Labels are numbers from 0, or names. Lists are looked for here, then in
    ``root``, then below the data root. The lists of ImageNet-LT, Places-LT and iNaturalist 2018 are
    known by their content, and the run says whether it reads them as published.

    Args:
        root: The folder that paths in the lists start from; a relative one is looked for here and
            then below the data root.
        train: The list of training images.
        val: The list of validation images; without one data.validation draws from train.
        test: The list of test images.
        test_fraction: Share of each class that is drawn from train as the test split, without a
            test list; a column of groups is kept to.
        columns: Columns of tables and keys of JSON entries, as [path, label] or [path, label,
            group]; by default such as path, file, image and label, class, target are looked for. A
            group (patient, smear, track) is in one split only.
        class_names: File of the names of classes: one a line in the order of labels, numbered
            lines, wnids with synonyms, or JSON such as categories.json. Without it a class is
            called by the folder that holds its images alone, else by its label.
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
        normalize: Mean and standard deviation of the training images, of ImageNet, of iNaturalist
            2018 as in classifier-balancing, or those that the pretrained weights of model.name
            were made with.
        title: Name of the data set in tables; by default that of the published lists, else the name
            of the folder.
        grey_bits: Bits in use of 16-bit greyscale files, of which the upper 8 are kept; X-rays
            often fill 12.

    Raises:
        DataError: If a key is missing or names nothing.
    """

    # The key whose list makes a validation split, in the place of one that is drawn.
    validation_key: ClassVar[str] = "val"
    may_have_sides: ClassVar[bool] = True
    files_runs_under: ClassVar[str] = "root"
    shared_defaults: ClassVar[dict[str, object]] = {
        "imbalance.kind": "none",
        "validation.per_class": None,
        "validation.fraction": 0.1,
        "augment.flip": True,
    }

    def __init__(  # noqa: PLR0913 - each is a key
        self,
        raw_data: Path,
        *,
        root: str | None = None,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        test_fraction: Annotated[float, Gt(0), Lt(1)] | None = None,
        columns: tuple[str, ...] | None = None,
        class_names: str | None = None,
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
        normalize: Literal["train", "imagenet", "inaturalist", "weights"] = "imagenet",
        title: str = "",
        grey_bits: Annotated[int, Interval(ge=8, le=16)] = 16,
    ) -> None:
        for key, value in (("root", root), ("train", train)):
            if not value:
                raise DataError(f"data.{key} is missing: data.name=image_list needs {_NEEDED[key]}")
        assert root and train
        if (test is None) == (test_fraction is None):
            raise DataError(
                "data.test is missing: give a list of test images, or data.test_fraction=0.2 to "
                "draw a fifth of train"
                if test is None
                else "data.test_fraction: has no effect, there is a test list; leave it out"
            )
        if columns is not None and not 2 <= len(columns) <= 3:
            raise DataError("data.columns: takes two or three names, as in [path, label, group]")
        self._raw_data = raw_data
        self._folder = find_folder(raw_data, root, key="data.root")
        named = {"train": train, "val": val, "test": test}
        self._lists = {
            split: self._find(name, key=f"data.{split}") for split, name in named.items() if name
        }
        self._test_fraction = test_fraction
        self._columns = columns
        self._class_names = (
            None if class_names is None else self._find(class_names, key="data.class_names")
        )
        self._cache = folder_cache(
            raw_data,
            size=size,
            test_size=test_size,
            crop_ratio=crop_ratio,
            interpolation=interpolation,
            exif_orientation=exif_orientation,
            grey_bits=grey_bits,
        )
        self._cache_bytes = cache_gb * 1e9
        self._normalize = normalize
        self._title = title

    def files(self) -> list[Path]:
        """Return the image files of all lists that are there, each once.

        Raises:
            DataError: If anything is wrong with the lists but what :meth:`describe` can bear.
        """
        unsaid: list[str] = []
        checked = check_lists(
            self._read(),
            self._folder,
            class_names=self._class_names,
            test_fraction=None,  # of one list all files are looked at, drawn as test or not
            with_facts=False,
            refuse=unsaid.append,
        )
        return list(dict.fromkeys(checked.listing.paths()))

    def load(self) -> Pool:
        """Return the images of the lists.

        Raises:
            DataError: If anything is wrong with the lists, a file cannot be decoded, or the cache
                cannot be written.
        """
        return self.describe(without=(), refuse=refuse)

    def describe(self, *, without: Collection[Path], refuse: Refuse) -> Pool:
        """Return the images of the lists, of which a run may have to be refused.

        Args:
            without: Files to leave out, as they cannot be read.
            refuse: What is done with a sentence about images or groups in two splits, and about
                missing files, which are then left out.

        Raises:
            DataError: As for :meth:`load`, but for what is refused.
        """
        lists = self._read()
        if self._columns is not None and not any(own.has_columns for own in lists.values()):
            raise DataError(
                "data.columns: has no effect, no list is a table (.csv, .tsv) or JSON; leave it out"
            )
        self._check_groups(lists)
        # Without sizes and dates an entry of the cache could not tell when a file changes.
        may_be_cached = self._may_be_cached(lists)
        has_facts = may_be_looked_at(sum(map(len, lists.values())), self._cache.decoding.size)

        def compare(listing: Listing) -> dict[str, np.ndarray] | None:
            return contents_of_few(listing, self._cache, without=without)

        checked = check_lists(
            lists,
            self._folder,
            class_names=self._class_names,
            test_fraction=self._test_fraction,
            with_facts=may_be_cached or has_facts,
            refuse=refuse,
            compare=compare if has_facts else None,
        )
        pool = folder_pool(
            checked.listing.without(without),
            self._cache,
            limit=self._cache_bytes if may_be_cached else 0,
            normalize=self._normalize,
            title=self._title or checked.verified or self._folder.name,
            has_facts=has_facts,
            verified=checked.verified,
        )
        if self._columns is None or len(self._columns) < 3:
            return pool
        return replace(pool, group_kind=self._columns[2])

    def _read(self) -> dict[str, ListFile]:
        return {
            split: read_list(file, key=f"data.{split}", columns=self._columns)
            for split, file in self._lists.items()
        }

    def _check_groups(self, lists: dict[str, ListFile]) -> None:
        """Refuse a list without the groups that ``data.columns`` names for all of them."""
        if self._columns is None or len(self._columns) < 3:
            return
        for own in lists.values():
            if own.groups is None:
                raise DataError(
                    f"{own.key}: {own.file} has no column of groups {self._columns[2]!r} "
                    "(data.columns): lines of text have none, give a table (.csv, .tsv) or JSON"
                )

    def _may_be_cached(self, lists: dict[str, ListFile]) -> bool:
        """Return whether decoded images may fit: the cache goes by size and date of every file."""
        size = self._cache.decoding.size
        if size is None:
            return True  # of images of unknown size it is kept that they have one size
        needed = sum(len(listed) for listed in lists.values()) * 3 * size.height * size.width
        return needed <= self._cache_bytes

    def _find(self, name: str, *, key: str) -> Path:
        """Return the file that a key names, from here, from ``root``, or from the raw data."""
        given = expanded(name, key=key)
        places = [Path.cwd(), self._folder, self._raw_data]
        candidates = list(dict.fromkeys(place / given for place in places))
        for file in candidates:
            with readable(file, key=key):
                if file.is_file():
                    return file
        looked = ", ".join(str(file) for file in candidates)
        raise DataError(f"{key}={name} is not a file: looked for {looked}")


_NEEDED = {
    "root": "the folder that paths in the lists start from",
    "train": "a list of training images",
}
