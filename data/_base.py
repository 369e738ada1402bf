"""The objects this package passes on: pools, splits, images on disk, and the one error."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor


class DataError(ValueError):
    """A mistake about data that the user can fix, told in one line."""


class HoldOutError(DataError):
    """The validation split that is asked for cannot be held out of these training images."""


Refuse = Callable[[str], None]
"""What is done with a sentence about data that no run may use."""


def refuse(sentence: str) -> None:
    """Refuse data; what describes them keeps the sentence instead.

    Raises:
        DataError: Always.
    """
    raise DataError(sentence)


def data_root() -> Path:
    """Return the folder for raw data: ``$DATA_ROOT``, else ``tailfocus`` in the user's cache.

    Raises:
        DataError: If nothing says where that cache is, as for a user without a home.
    """
    for key, below in (("DATA_ROOT", ""), ("XDG_CACHE_HOME", "tailfocus")):
        if chosen := os.environ.get(key):
            return expanded(chosen, key=key) / below
    try:
        return Path.home() / ".cache/tailfocus"
    except RuntimeError as error:
        raise DataError(
            "DATA_ROOT is not set and there is no home folder: set it to a folder for raw data"
        ) from error


def expanded(path: str, *, key: str) -> Path:
    """Return a path whose ``~`` or ``~user`` is replaced by the home folder.

    Args:
        path: As spelled.
        key: The config key or environment variable that it comes from.

    Raises:
        DataError: If there is no such user, or no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"{key}={path}: {Path(path).parts[0]} has no home folder; write it in full"
        ) from error


class ImageShape(NamedTuple):
    """Channels, height and width of every image of a set."""

    channels: int
    height: int
    width: int


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


Interpolation = Literal["bilinear", "bicubic"]
DEEPEST = 16  # bits of the deepest greyscale that is taken


@dataclass(frozen=True)
class Decoding:
    """How an image file becomes pixels; see :func:`data.decode` for the arguments."""

    size: Size | None = None
    crop_ratio: float = 1.0
    interpolation: Interpolation = "bilinear"
    exif_orientation: bool = False
    grey_bits: int = DEEPEST


@dataclass(frozen=True, eq=False)
class DiskImages:
    """Images that stay on disk and are decoded when a batch asks for them.

    The names are one NumPy array of bytes, not a list of strings: worker processes then share its
    pages instead of copying them as reference counts are touched.

    Args:
        folder: What ``names`` are relative to.
        names: (N,) bytes, path of each image.
        file_sizes: (N,) int64, size of each file in bytes.
        shape: Shape of every image once decoded.
        decoding: How files are decoded.
        digests: Folder that keeps digests of their pixels, by which a split of them is
            fingerprinted; None where it is by names and file sizes.
    """

    folder: Path
    names: np.ndarray
    file_sizes: np.ndarray
    shape: ImageShape
    decoding: Decoding = Decoding()
    digests: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    def path(self, position: int) -> Path:
        """Return the file of the image at ``position``."""
        return self.folder / os.fsdecode(self.names[position])

    def select(self, index: np.ndarray) -> DiskImages:
        """Return the images at ``index`` (M,), in that order."""
        return replace(self, names=self.names[index], file_sizes=self.file_sizes[index])


Images = Tensor | DiskImages
"""Images in memory, uint8 (N, C, H, W), perhaps a private memory map; or images on disk."""


def image_shape(images: Images) -> ImageShape:
    """Return the shape that every one of ``images`` has."""
    if isinstance(images, DiskImages):
        return images.shape
    return ImageShape(*images.shape[1:])


def select_images(images: Images, index: Tensor) -> Images:
    """Return the images at ``index`` (M,); the whole list in its order is shared, not copied."""
    if len(index) == len(images) and torch.equal(index, torch.arange(len(index))):
        return images
    return images.select(index.numpy()) if isinstance(images, DiskImages) else images[index]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images and their targets, in the data set's own order.

    Args:
        images: N images, as they are tested.
        targets: (N,) int64, class of each image.
        files: The files of the same images with the decoding of training; None where no training
            needs them, since ``images`` are whole and trained on as they are tested.
        is_trained_as_tested: Whether ``images`` are what training takes, unless it crops whole
            images.
        groups: (N,) int64, number of the group that each image belongs to (smear, patient, track),
            the same in all lists of a pool; None where nothing is known of groups.
        contents: (N,) int64, number of what each image shows: the same for images of equal bytes or
            pixels in all lists of a pool, and different for all others; None where nobody looked.
        names: (N,) bytes, what each image is called in sentences: its file, from the folder of the
            data set; None where images are no files, or on disk and have their names themselves.
        stored: The files that images in memory are told apart and fingerprinted by, as on disk;
            None where the images are themselves.
    """

    images: Images
    targets: Tensor
    files: DiskImages | None = None
    is_trained_as_tested: bool = True
    groups: np.ndarray | None = None
    contents: np.ndarray | None = None
    names: np.ndarray | None = None
    stored: DiskImages | None = None

    @classmethod
    def of(
        cls,
        images: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray,
        *,
        index: np.ndarray,
        names: np.ndarray,
        contents: np.ndarray | None = None,
    ) -> Labelled:
        """Return the images at ``index`` of arrays of all of them, uint8 (N, C, H, W)."""
        return cls(
            torch.from_numpy(images[index]),
            torch.from_numpy(labels[index]),
            groups=groups[index],
            contents=None if contents is None else contents[index],
            names=names[index],
        )

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True, eq=False)
class Pool:
    """All images of a data set, before a subset is drawn.

    Args:
        train: Images that training and validation are drawn from.
        test: Images of the test split, taken as they are.
        class_names: Name of each class, in label order.
        title: Name of the data set in tables, e.g. "CIFAR-10".
        val: The data set's own validation list, None where it has none.
        mean: Per-channel mean in [0, 1]; None to compute it from the drawn training subset.
        std: Per-channel standard deviation in [0, 1]; None as for ``mean``.
        notes: Sentences the user must be told about the images.
        verified: The published data set whose training and test lists these images are of, checked
            line by line; empty where nothing says so.
        group_kind: What a group of images is called in sentences, as in "split by smear".
        joins_copies: Whether a drawn validation split keeps images of equal contents together;
            false where contents were added to describe the splits of a run that has none.
        may_share_groups: Whether a group may be in two of its own lists: the user allows it, or the
            reader has looked itself. Else no run begins on such a pool.
    """

    train: Labelled
    test: Labelled
    class_names: tuple[str, ...]
    title: str
    val: Labelled | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()
    verified: str = ""
    group_kind: str = "group"
    joins_copies: bool = True
    may_share_groups: bool = False


class Source(Protocol):
    """A data-set component: anything that can load a pool."""

    def load(self) -> Pool:
        """Return all images of the data set."""
        ...


@dataclass(frozen=True, eq=False)
class Split:
    """One split: images, their targets, and where each stood in the pool.

    Args:
        images: N images, as they are tested.
        targets: (N,) int64, class of each image.
        index: (N,) int64, position of each image in the pool's list it was taken from.
        files: As for :class:`Labelled`; None in a split that is not trained on.
        is_trained_as_tested: As for :class:`Labelled`.
        groups: As for :class:`Labelled`.
        contents: As for :class:`Labelled`.
        names: As for :class:`Labelled`.
        stored: As for :class:`Labelled`.
    """

    images: Images
    targets: Tensor
    index: Tensor
    files: DiskImages | None = None
    is_trained_as_tested: bool = True
    groups: np.ndarray | None = None
    contents: np.ndarray | None = None
    names: np.ndarray | None = None
    stored: DiskImages | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def file(self, position: int) -> str | None:
        """Return the file of an image, from the folder of the data set; None where it has none."""
        names = self.images.names if isinstance(self.images, DiskImages) else self.names
        return None if names is None else os.fsdecode(names[position])

    def name(self, position: int) -> str:
        """Return what an image is called in sentences: its file, else its number in its list."""
        file = self.file(position)
        return f"number {self.index[position]}" if file is None else file

    @property
    def identified_by(self) -> Images:
        """The images, or the files that they are told apart and fingerprinted by."""
        return self.images if self.stored is None else self.stored

    def trained_on(self, *, whole: bool) -> Images:
        """Return the images that training takes; ``whole`` where it crops whole images."""
        if self.files is not None and (whole or not self.is_trained_as_tested):
            return self.files
        return self.images

    def select(self, kept: Tensor) -> Split:
        """Return the images at ``kept`` (M,), in that order."""
        index = kept.numpy()
        groups, contents, names = (
            None if own is None else own[index] for own in (self.groups, self.contents, self.names)
        )
        return replace(
            self,
            images=select_images(self.images, kept),
            targets=self.targets[kept],
            index=self.index[kept],
            files=None if self.files is None else self.files.select(index),
            groups=groups,
            contents=contents,
            names=names,
            stored=None if self.stored is None else self.stored.select(index),
        )


@dataclass(frozen=True)
class Classes:
    """What a run does with each class; ascending labels.

    Args:
        trained: Has training (and validation) images.
        taught: Known to the teacher; empty without one.
        tested: Has test images.
    """

    trained: tuple[int, ...]
    taught: tuple[int, ...]
    tested: tuple[int, ...]

    @property
    def known(self) -> tuple[int, ...]:
        """Those that the trained model can be expected to tell apart."""
        return tuple(sorted({*self.trained, *self.taught}))

    @property
    def predicted(self) -> tuple[int, ...]:
        """Those that a prediction is one of; logits of all others were never trained."""
        return tuple(sorted({*self.known, *self.tested}))

    @property
    def old(self) -> tuple[int, ...]:
        """The teacher's; without a teacher those that are tested but not trained on."""
        return self.taught or tuple(c for c in self.tested if c not in self.trained)


@dataclass(frozen=True, eq=False)
class LongTailed:
    """The three disjoint splits of a run and what a run must know and say about them.

    Args:
        train: Training split, with the imbalance that was asked for.
        val: Validation split, or None.
        test: Test split.
        class_counts: (C,) int64, training images of each class.
        whole_counts: (C,) int64, images of each class in the data set's training list, before the
            imbalance is cut and validation held out: how frequent the classes are by nature.
        class_names: Name of each class, in label order.
        mean: Per-channel mean in [0, 1] that images are normalised with.
        std: Per-channel standard deviation in [0, 1] that images are normalised with.
        split_fingerprint: 12 hex digits that change when a split or an image does.
        former_fingerprints: Those that earlier versions gave the same splits.
        whole_fingerprint: The same of the splits before they were cut down to some classes, which
            the runs of a sequence share.
        former_whole_fingerprints: Those that earlier versions gave the same.
        classes: Which classes are trained on, taught and tested.
        val_is_balanced: Whether every class has the same number of validation images.
        val_is_own: Whether validation is the data set's own list, so that nothing was held out.
        title: Name of the data set in tables.
        is_drawn: Whether the seed of the imbalance decides which images are in the splits; else
            runs that differ in it alone have the same ones.
        notes: Sentences the user must be told about the splits.
        source_notes: Those of them that are about the images, and worth knowing before training.
        verified: As of :class:`Pool`.
        has_groups: Whether the data set knows which images belong together.
    """

    train: Split
    val: Split | None
    test: Split
    class_counts: np.ndarray
    whole_counts: np.ndarray
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    split_fingerprint: str
    whole_fingerprint: str
    classes: Classes
    val_is_balanced: bool
    val_is_own: bool
    title: str
    is_drawn: bool
    notes: tuple[str, ...]
    source_notes: tuple[str, ...] = ()
    verified: str = ""
    has_groups: bool = False
    former_fingerprints: tuple[str, ...] = ()
    former_whole_fingerprints: tuple[str, ...] = ()

    def has_fingerprint(self, fingerprint: str) -> bool:
        """Return whether it is that of the splits, be it an earlier version's."""
        return fingerprint in (self.split_fingerprint, *self.former_fingerprints)

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name."""
        every = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in every.items() if split is not None}

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> ImageShape:
        """Shape of every training image."""
        return image_shape(self.train.images if self.train.files is None else self.train.files)

    @property
    def test_shape(self) -> ImageShape:
        """Shape of every validation and test image."""
        return image_shape(self.test.images)
