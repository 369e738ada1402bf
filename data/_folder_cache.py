"""The decoded form of an image folder: a memory-mapped uint8 cache, or a list of files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data._base import DataError, Decoding, DiskImages, Images, ImageShape, Labelled
from data._decode import decode, decoder_versions, stored_shape
from data._duplicates import equal_files, numbered
from data._folder import Listing
from data._progress import progress
from data._scratch import written_whole

_CHUNK = 256  # files decoded before their pixels are written
_MANY = 10_000  # files from which on it is kept which of them are the same


@dataclass(frozen=True)
class FolderCache:
    """Decoded image folders below one cache folder.

    An entry's name is a hash of what the pixels depend on: name, size and time of last change of
    every file, the decoding options and the versions of Pillow and torchvision. An entry is written
    under another name and renamed when it is whole; it may be deleted at any time.

    Args:
        folder: Where entries are kept.
        decoding: How files are decoded, as they are tested.
        training: The same for training; None is no other way.
    """

    folder: Path
    decoding: Decoding
    training: Decoding | None = None

    def parts(self, listing: Listing, *, limit: float) -> dict[str, Labelled]:
        """Return the images of every split with their targets, as :meth:`images` has them.

        Training images that the cache cannot serve, whole or prepared otherwise than tested ones,
        are there as files, too.

        Raises:
            DataError: As for :meth:`images`.
        """
        images = self.images(listing, limit=limit)
        parts = {
            name: Labelled(
                own,
                listing.splits[name].targets,
                names=None if isinstance(own, DiskImages) else listing.splits[name].names,
            )
            for name, own in images.items()
        }
        training = self.training or self.decoding
        is_alike = training == self.decoding
        is_whole = self.decoding.size is None or isinstance(images["train"], DiskImages)
        if not (is_alike and is_whole):
            parts["train"] = dataclasses.replace(
                parts["train"],
                files=self.on_disk(listing, "train", decoding=training),
                is_trained_as_tested=is_alike,
            )
        return parts

    def images(self, listing: Listing, *, limit: float) -> dict[str, Images]:
        """Return the images of every split, in memory maps if all fill at most ``limit`` bytes.

        Raises:
            DataError: If a file cannot be decoded, sizes differ, or there is no room.
        """
        if self.decoding.size is not None and self.num_bytes(listing) > limit:
            return {name: self.on_disk(listing, name) for name in listing.splits}
        entry = self._entry(listing)
        mapped = _open(entry, listing)
        if mapped is not None and sum(images.nbytes for images in mapped.values()) <= limit:
            return dict(mapped)
        shape = self._shape(listing, self.decoding)
        total = self.num_bytes(listing)
        if total > limit:
            self._check_shapes(listing, shape)
            return {name: self.on_disk(listing, name) for name in listing.splits}
        with written_whole(
            entry, needed=total, is_whole=lambda: _open(entry, listing) is not None
        ) as scratch:
            self._decode_all(listing, scratch, shape=shape)
        mapped = _open(entry, listing)
        assert mapped is not None, "the entry has just been written"
        return dict(mapped)

    def contents(self, listing: Listing) -> dict[str, np.ndarray]:
        """Return what the files of each split are told apart by, as of :class:`Labelled`.

        Which files of a large folder are the same is kept.

        Raises:
            DataError: If a file cannot be read.
        """
        total = sum(len(files) for files in listing.splits.values())
        if total < _MANY:
            return numbered(listing, equal_files(listing))
        entry = self._entry(listing).with_suffix(".copies")
        if (known := _read_copies(entry, total)) is not None:
            return numbered(listing, known)
        found = equal_files(listing)
        with (
            contextlib.suppress(DataError),  # no room: it is looked for again next time
            written_whole(
                entry, needed=0, is_whole=lambda: _read_copies(entry, total) is not None
            ) as scratch,
        ):
            np.save(scratch / "found.npy", found)
        return numbered(listing, found)

    def num_bytes(self, listing: Listing) -> int:
        """Return how much room the decoded images of all splits take.

        Raises:
            DataError: If the first file is no image, and its size is that of all.
        """
        num_images = sum(len(files) for files in listing.splits.values())
        return num_images * math.prod(self._shape(listing, self.decoding))

    def on_disk(
        self, listing: Listing, split: str, *, decoding: Decoding | None = None
    ) -> DiskImages:
        """Return the images of a split as files, decoded as they are tested if not said otherwise.

        Raises:
            DataError: As for :meth:`num_bytes`.
        """
        decoding = decoding or self.decoding
        files, shape = listing.splits[split], self._shape(listing, decoding)
        return DiskImages(listing.folder, files.names, files.sizes, shape, decoding)

    def _entry(self, listing: Listing) -> Path:
        digest = hashlib.sha256(f"{decoder_versions()} {_options(self.decoding)}".encode())
        for name, files in listing.splits.items():
            digest.update(f"{name} {len(files)}".encode() + b"\0".join(files.names.tolist()))
            digest.update(files.sizes.tobytes() + files.times.tobytes())
        return self.folder / digest.hexdigest()[:24]

    def _shape(self, listing: Listing, decoding: Decoding) -> ImageShape:
        if decoding.size is not None:
            return ImageShape(3, *decoding.size)
        first = _paths(listing, "train")[0]
        return stored_shape(first, exif_orientation=decoding.exif_orientation)

    def _check_shapes(self, listing: Listing, shape: ImageShape) -> None:
        """Read the headers of all files and refuse sizes that differ; once for a listing."""
        if self.decoding.size is not None:
            return
        checked = self._entry(listing).with_suffix(".checked")
        if checked.is_dir():
            return
        paths = [path for name in listing.splits for path in _paths(listing, name)]
        header = functools.partial(stored_shape, exif_orientation=self.decoding.exif_orientation)
        with (
            progress("checking image sizes", total=len(paths)) as advance,
            ThreadPoolExecutor() as pool,
        ):
            for chunk in _chunks(paths):
                for path, found in zip(chunk, pool.map(header, chunk), strict=True):
                    _check_same(path, found, first=paths[0], shape=shape)
                advance(len(chunk))
        with (
            contextlib.suppress(DataError),  # nowhere to write it: it is done again next time
            written_whole(checked, needed=0, is_whole=checked.is_dir),
        ):
            pass  # the empty folder says that it was done

    def _decode_all(self, listing: Listing, scratch: Path, *, shape: ImageShape) -> None:
        """Decode every file in threads (Pillow frees the lock) into one array for each split."""
        first = _paths(listing, "train")[0]
        options = vars(self.decoding)

        def decode_one(path: Path) -> bytes:
            image = decode(path, **options)
            _check_same(path, ImageShape(*image.shape), first=first, shape=shape)
            return image.numpy().tobytes()

        total = sum(len(files) for files in listing.splits.values())
        with progress("decoding", total=total) as advance, ThreadPoolExecutor() as pool:
            for name, files in listing.splits.items():
                with (scratch / f"{name}.npy").open("wb") as file:
                    header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), *shape)}
                    np.lib.format.write_array_header_1_0(file, header)
                    for chunk in _chunks(_paths(listing, name)):
                        file.writelines(pool.map(decode_one, chunk))
                        advance(len(chunk))
                    file.flush()
                    os.fsync(file.fileno())


def _options(decoding: Decoding) -> str:
    """Return what tells the decoded forms of a file apart: what differs from the defaults."""
    size = decoding.size
    named = str(size[0] if size is not None and size[0] == size[1] else size and tuple(size))
    changed = {k: v for k, v in vars(decoding).items() if v != getattr(Decoding(), k)}
    changed.pop("size", None)
    if changed.keys() == {"grey_bits"}:
        return f"{named} {decoding.grey_bits}"
    return f"{named} {json.dumps(changed)}" if changed else named


def _open(entry: Path, listing: Listing) -> dict[str, Tensor] | None:
    """Map an entry privately (writes never reach the file); None if it is absent or damaged."""
    mapped = {}
    for name, files in listing.splits.items():
        try:
            pixels = np.load(entry / f"{name}.npy", mmap_mode="c")
        except (OSError, ValueError, EOFError):
            return None
        if pixels.ndim != 4 or len(pixels) != len(files) or pixels.dtype != np.uint8:
            return None
        mapped[name] = torch.from_numpy(pixels)
    return mapped


def _read_copies(entry: Path, total: int) -> np.ndarray | None:
    """Read which of ``total`` files are equal; None if that is absent or damaged."""
    try:
        found = np.load(entry / "found.npy")
    except (OSError, ValueError, EOFError):
        return None
    is_whole = found.ndim == 2 and found.shape[1] == 2 and found.dtype == np.int64
    return found if is_whole and ((found >= 0) & (found < total)).all() else None


def _check_same(path: Path, found: ImageShape, *, first: Path, shape: ImageShape) -> None:
    if found != shape:
        raise DataError(
            f"{path} is {found.width}x{found.height} pixels, {first} is "
            f"{shape.width}x{shape.height}: set data.size to resize all images to one size"
        )


def _paths(listing: Listing, split: str) -> list[Path]:
    return [listing.folder / os.fsdecode(name) for name in listing.splits[split].names]


def _chunks(paths: list[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(paths), _CHUNK):
        yield paths[start : start + _CHUNK]
