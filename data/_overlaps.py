"""Images of one split that are in another, too: equal pixels or files, or alike to look at."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from data._base import Classes, DataError, DiskImages, Images, Split
from data._near_duplicates import image_hashes, near_pairs
from data._progress import of_files
from data._statistics import decoded

_LEFT_OUT = "data.drop_duplicates"
# What gives up images, and to which splits: never test.
_GIVING = (("val", ("test",)), ("train", ("test", "val")))


class Cleaned(NamedTuple):
    """Splits without the images of one that are in another, and what must be said of it."""

    splits: dict[str, Split | None]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Prints:
    """What N images are recognised by.

    Args:
        contents: Digest of each image.
        hashes: (N,) uint64, of how each looks; None where only equal images count.
    """

    contents: np.ndarray
    hashes: np.ndarray | None

    def select(self, kept: np.ndarray) -> _Prints:
        return _Prints(self.contents[kept], None if self.hashes is None else self.hashes[kept])


def content_digests(images: Images) -> Iterator[bytes]:
    """Yield a digest of each image: of its pixels, or of the bytes of a file on disk.

    Raises:
        DataError: If a file cannot be read.
    """
    if isinstance(images, Tensor):
        for image in images.contiguous().numpy():
            yield hashlib.sha256(image).digest()
        return
    paths = map(images.path, range(len(images)))
    yield from of_files(_file_digest, paths, total=len(images), doing="comparing files")


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error


def number_contents(digests: Mapping[str, Iterable[bytes]]) -> dict[str, np.ndarray]:
    """Return a number for each digest (N,) int64, the same for equal ones of all splits."""
    numbers: dict[bytes, int] = {}
    return {
        name: np.array([numbers.setdefault(digest, len(numbers)) for digest in own], dtype=np.int64)
        for name, own in digests.items()
    }


def near_notes(splits: Mapping[str, Split], *, most_bits: int) -> tuple[str, ...]:
    """Return a sentence for each pair of splits with images that look alike.

    Args:
        splits: By name, in the order train, val, test.
        most_bits: As for :func:`data._near_duplicates.near_pairs`.
    """
    hashes = {name: image_hashes(split.images) for name, split in splits.items()}
    notes = []
    for (first, a), (second, b) in itertools.combinations(splits.items(), 2):
        found = near_pairs(hashes[first], hashes[second], most_bits=most_bits)
        if len(found.second):
            here, there = b.name(int(found.second[0])), a.name(int(found.first[0]))
            notes.append(
                f"{second} images that look like one of {first}: {len(found.second):,} of "
                f"{len(b):,} ({here} like {there}; data.near_duplicates)"
            )
    return tuple(notes)


def without_overlaps(
    splits: Mapping[str, Split | None],
    *,
    most_bits: int | None,
    class_names: Sequence[str],
    classes: Classes,
) -> Cleaned:
    """Leave out of training what is in test or validation, and out of validation what is in test.

    Test keeps all its images, so that runs with and without are tested on the same ones. What was
    compared is kept as the contents of splits that had none.

    Args:
        splits: ``train``, ``val`` and ``test``, in this order.
        most_bits: Bits of 64 in which the hashes of images that look alike may differ; None leaves
            out images of equal content alone.
        class_names: Name of each class, in label order.
        classes: Which of them the run trains on and tests; no other is spoken of.

    Raises:
        DataError: If a class would be left without training images, or validation without any.
    """
    prints = {
        name: _prints(split.images, with_hashes=most_bits is not None)
        for name, split in splits.items()
        if split is not None
    }
    left = _with_contents(splits, prints)
    notes = []
    for name, others in _GIVING:
        split = left[name]
        if split is None:
            continue
        found = {
            other: _repeats(prints[name], prints[other], most_bits=most_bits)
            for other in others
            if other in prints
        }
        is_in = np.logical_or.reduce(list(found.values()))
        if not is_in.any():
            continue
        kept = np.flatnonzero(~is_in)
        left[name] = split.select(torch.from_numpy(kept))
        prints[name] = prints[name].select(kept)
        _check_left(split, kept, name=name, class_names=class_names)
        own = np.isin(split.targets.numpy(), classes.trained)
        if not (is_in & own).any():
            continue
        where = ", ".join(
            f"{num:,} of {other}" for other, n in found.items() if (num := int((n & own).sum()))
        )
        like = "repeat or look like" if most_bits is not None else "repeat"
        notes.append(
            f"{(is_in & own).sum():,} of {own.sum():,} {name} images are left out, as they {like} "
            f"images: {where} ({_LEFT_OUT})"
        )
    test = splits["test"]
    assert test is not None
    if notes:
        num_tested = int(np.isin(test.targets.numpy(), classes.tested).sum())
        notes.append(f"test keeps all its {num_tested:,} images ({_LEFT_OUT})")
    else:
        notes.append(f"no image is left out: none is in two splits ({_LEFT_OUT})")
    return Cleaned(left, tuple(notes))


def _prints(images: Images, *, with_hashes: bool) -> _Prints:
    """Return what images are compared by: pixels, or the bytes of too many files to decode."""
    if isinstance(images, DiskImages) and images.digests is not None:
        digests = [hashlib.sha256(pixels).digest() for pixels in decoded(images)]
    else:
        digests = list(content_digests(images))
    contents = np.array(digests, dtype="V32")
    return _Prints(contents, image_hashes(images) if with_hashes else None)


def _with_contents(
    splits: Mapping[str, Split | None], prints: Mapping[str, _Prints]
) -> dict[str, Split | None]:
    """Return the splits with numbers of what their images show, unless they have them."""
    if all(split is None or split.contents is not None for split in splits.values()):
        return dict(splits)
    numbers = number_contents({name: own.contents.tolist() for name, own in prints.items()})
    return {
        name: None if split is None else replace(split, contents=numbers[name])
        for name, split in splits.items()
    }


def _repeats(own: _Prints, other: _Prints, *, most_bits: int | None) -> np.ndarray:
    """Return which images (N,) are among the others, too, or look like one of them."""
    known = set(other.contents.tolist())
    is_in = np.array([content in known for content in own.contents.tolist()], dtype=bool)
    if most_bits is not None:
        assert own.hashes is not None and other.hashes is not None
        is_in[near_pairs(other.hashes, own.hashes, most_bits=most_bits).second] = True
    return is_in


def _check_left(split: Split, kept: np.ndarray, *, name: str, class_names: Sequence[str]) -> None:
    """Refuse a validation split without images, and a class that training would lose."""
    remedy = "remove the copies by hand, or set it to false"
    if not len(kept):
        raise DataError(
            f"{_LEFT_OUT}=true leaves no {name} image: each of the {len(split):,} is in another "
            f"split, too; {remedy}"
        )
    if name != "train":
        return
    before = np.bincount(split.targets.numpy(), minlength=len(class_names))
    after = np.bincount(split.targets.numpy()[kept], minlength=len(class_names))
    for label in np.flatnonzero((before > 0) & (after == 0))[:1]:
        raise DataError(
            f"{_LEFT_OUT}=true leaves class {class_names[label]} no training image: each of its "
            f"{before[label]} is in another split, too; {remedy}"
        )
