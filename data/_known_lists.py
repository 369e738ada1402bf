"""The published lists, known by content, and how far another list is from them."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data._list_file import ListFile
from data._list_labels import LONGEST

FILE = Path(__file__).with_name("known_lists.json")
SKETCH = 128  # hashes of lines that are kept of a list
_NEAR = 0.3  # share of lines in common from which on a list is an edited copy
_ALIKE = 0.02  # by how much the length may differ where the lines themselves are not known


@dataclass(frozen=True)
class KnownList:
    """A published list.

    Args:
        data_set: The data set, as tables call it.
        split: Train, val or test; of iNaturalist 2018, whose test labels are not public, the list
            called val is what papers test on.
        name: The list in words.
        source: Where it was published.
        git_blob: What git calls it: SHA-1 of "blob", the size, a zero byte, and the content.
        num_lines: Lines, one an image.
        num_classes: Classes.
        checksum: Sum of the hashes of all lines, which their order leaves alone; None where the
            lines were not at hand.
        sketch: The smallest of these hashes, ascending (Broder 1997, "On the resemblance and
            containment of documents"); empty likewise.
        counts: (C,) images of each class; empty likewise.
    """

    data_set: str
    split: str
    name: str
    source: str
    git_blob: str
    num_lines: int
    num_classes: int
    checksum: int | None
    sketch: tuple[int, ...]
    counts: tuple[int, ...]


class Recognised(NamedTuple):
    """What a list is, or is near to.

    Args:
        known: The published list.
        is_verified: Whether it is that list, line by line.
        sentence: What to say.
    """

    known: KnownList
    is_verified: bool
    sentence: str


@functools.cache
def known_lists() -> tuple[KnownList, ...]:
    """Return the published lists."""
    return tuple(
        KnownList(
            **{
                **entry,
                "sketch": tuple(int(number, 16) for number in entry["sketch"].split()),
                "counts": expanded(entry["counts"]),
                "checksum": int(entry["checksum"], 16) if entry["checksum"] else None,
            }
        )
        for entry in json.loads(FILE.read_text(encoding="utf-8"))
    )


def expanded(counts: str) -> tuple[int, ...]:
    """Return the numbers of a text in which ``20*3`` stands for ``20 20 20``.

    >>> expanded("5 20*3")
    (5, 20, 20, 20)
    """
    found: list[int] = []
    for part in counts.split():
        value, _, times = part.partition("*")
        found += [int(value)] * int(times or 1)
    return tuple(found)


def git_blob(content: bytes) -> str:
    """Return the name that git gives to a file's content.

    >>> git_blob(b"")
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(f"blob {len(content)}\0".encode() + content)
    return digest.hexdigest()


def line_hashes(listed: ListFile) -> np.ndarray:
    """Return a number for each line ``path label`` of a list, uint64 (N,)."""
    pairs = zip(listed.paths.tolist(), listed.labels.tolist(), strict=True)
    digests = (hashlib.blake2b(b"%b %b" % pair, digest_size=8).digest() for pair in pairs)
    return np.frombuffer(b"".join(digests), dtype="<u8")


def recognise(listed: ListFile) -> Recognised | None:
    """Return which published list a list is, or is an edited copy of; None if it is near none.

    Args:
        listed: The list as read, before anything is left out or renamed.
    """
    content = listed.file.read_bytes()
    blobs = {git_blob(content): ""}
    if len(listed) in {known.num_lines for known in known_lists()}:
        blobs.setdefault(git_blob(_plain(content)), ", with other line ends")
    for known in known_lists():
        if known.git_blob in blobs:
            return _verified(known, listed, blobs[known.git_blob])
    sizes = [known.num_lines for known in known_lists() if known.sketch]
    if not _NEAR * min(sizes) <= len(listed) <= max(sizes) / _NEAR:
        return _of_like_length(listed)  # no list of such a length can be near
    hashes = line_hashes(listed)
    checksum = int(hashes.sum(dtype=np.uint64))
    for known in known_lists():
        if known.checksum == checksum and known.num_lines == len(listed):
            return _verified(known, listed, ", in another order or form")
    sketch = np.unique(hashes)[:SKETCH]
    shares = {known: _resemblance(sketch, known) for known in known_lists() if known.sketch}
    nearest = max(shares, key=lambda known: shares[known])
    if shares[nearest] >= _NEAR:
        return Recognised(nearest, is_verified=False, sentence=_far(nearest, listed, shares))
    return _of_like_length(listed)


def _verified(known: KnownList, listed: ListFile, how: str) -> Recognised:
    text = (
        f"{listed.file.name} is {known.name}, {known.num_lines:,} images, as in {known.source}{how}"
    )
    return Recognised(known, is_verified=True, sentence=text)


def _plain(content: bytes) -> bytes:
    """Return a text as editors on Unix write it."""
    lines = content.removeprefix(b"\xef\xbb\xbf").splitlines()
    return b"".join(line.rstrip() + b"\n" for line in lines if line.strip())


def _resemblance(sketch: np.ndarray, known: KnownList) -> float:
    """Estimate which share of the lines of both lists together is in both of them."""
    other = np.array(known.sketch, dtype=np.uint64)
    union = np.union1d(sketch, other)[:SKETCH]
    return float((np.isin(union, sketch) & np.isin(union, other)).mean())


def _far(known: KnownList, listed: ListFile, shares: Mapping[KnownList, float]) -> str:
    """Say how far a list is from the published one that it resembles."""
    is_short = np.char.isdigit(listed.labels) & (np.char.str_len(listed.labels) <= LONGEST)
    labels = listed.labels[is_short].astype(np.int64)
    labels = labels[labels < known.num_classes]
    ours = np.bincount(labels, minlength=known.num_classes)
    theirs = np.array(known.counts, dtype=np.int64)
    more, fewer = (int((d := sign * (ours - theirs))[d > 0].sum()) for sign in (1, -1))
    num_changed = int((ours != theirs).sum())
    counts = (
        f"{num_changed} classes have other numbers of images ({more} more, {fewer} fewer)"
        if num_changed
        else "every class has as many images, so that paths or labels differ"
    )
    if num_other := len(listed) - len(labels):
        counts += f"; {num_other} lines have another label than 0 to {known.num_classes - 1}"
    share = shares[known]
    common = f"about {share:.0%}" if share < 1 else "almost all"
    return (
        f"{listed.file.name} is an edited copy of {known.name}, as in {known.source}: "
        f"{len(listed):,} lines for {known.num_lines:,}, {common} of all lines in both; {counts}"
    )


def _of_like_length(listed: ListFile) -> Recognised | None:
    """Compare with the lists that are known by name and length alone."""
    num_classes = len(np.unique(listed.labels))
    for known in known_lists():
        is_alike = math.isclose(len(listed), known.num_lines, rel_tol=_ALIKE)
        if not known.sketch and is_alike and num_classes == known.num_classes:
            how = "the same number of classes, other content"
            if len(listed) == known.num_lines:
                how = (
                    "as many classes; it may be edited, or the same in another order or form: of "
                    "the published one no more than a hash is known, which cannot tell"
                )
            text = (
                f"{listed.file.name} is not {known.name} byte for byte as in {known.source}: "
                f"{len(listed):,} lines for {known.num_lines:,}, {how} "
                f"(git blob {known.git_blob[:12]})"
            )
            return Recognised(known, is_verified=False, sentence=text)
    return None
