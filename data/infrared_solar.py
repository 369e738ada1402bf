"""InfraredSolarModules: 20,000 thermal images of solar modules, 24x40 (Millendorf et al. 2020)."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from data._array_cache import decoded_once
from data._base import DataError, Labelled, Pool, Refuse, refuse
from data._decode import decode_grey
from data._folder import readable
from data._groups import draw_test
from data._json import kind_of
from data._notes import prior_note
from data._origin import find_unpacked

_METADATA = "module_metadata.json"
_SOURCE = "github.com/RaptorMaps/InfraredSolarModules (2020-02-14_InfraredSolarModules.zip)"
_FORM = '{"0": {"image_filepath": "images/0.jpg", "anomaly_class": "Cell"}, ...}'
_WIDTH, _HEIGHT = 24, 40
_CHUNK = 1024  # images that are resized at once
# Images of each class in the metadata; the origin's README has other numbers, in sum 20,006.
_COUNTS = {
    "No-Anomaly": 10_000,
    "Cell": 1_877,
    "Vegetation": 1_639,
    "Diode": 1_499,
    "Cell-Multi": 1_288,
    "Shadowing": 1_056,
    "Cracking": 940,
    "Offline-Module": 827,
    "Hot-Spot": 249,
    "Hot-Spot-Multi": 246,
    "Soiling": 204,
    "Diode-Multi": 175,
}
_NAMES = tuple(_COUNTS)


class InfraredSolar:
    """Thermal images of solar modules, 24x40 and grey: sound ones and 11 kinds of faults.

    The set is long-tailed by nature, 10,000 images of sound modules to 175 of the rarest fault
    (factor 57), and has no test split: one is drawn by class. Images with the same pixels (22 pairs
    of byte-identical files) are one group, which is never in two splits. Classes are ordered by
    falling frequency.

    Args:
        path: The folder with images/ and module_metadata.json; by default infrared_solar or
            InfraredSolarModules below the data root.
        test_fraction: Share of each class that is drawn as the test split.
        test_prior: Class shares of the test split: natural keeps those of the data set, which is
            what accuracy, NLL and ECE are then measured at (balanced accuracy is the mean recall
            of the classes, at any shares); balanced keeps as many images of each class as the
            rarest has, a part of the natural one.
        split_seed: Seed of the test split, apart from all others.
        size: Side of the square that images are resized to, as models of photographs take it; null
            leaves them 24x40.

    Raises:
        DataError: If the files are missing, damaged, or not those that the metadata name.
    """

    shared_defaults: ClassVar[dict[str, object]] = {
        "imbalance.kind": "none",
        "validation.per_class": None,
        "validation.fraction": 0.15,
        "augment.crop": 2,
        "augment.flip": True,
    }

    def __init__(
        self,
        root: Path,
        *,
        path: str | None = None,
        test_fraction: Annotated[float, Gt(0), Lt(1)] = 0.25,
        test_prior: Literal["natural", "balanced"] = "natural",
        split_seed: Annotated[int, Ge(0), Lt(2**32)] = 0,
        size: Annotated[int, Ge(8)] | None = None,
    ) -> None:
        self._root, self._path = root, path
        self._test_fraction = test_fraction
        self._test_prior = test_prior
        self._split_seed, self._size = split_seed, size

    def files(self) -> list[Path]:
        """Return the image files."""
        folder = self._folder()
        return [folder / file for file in _read_metadata(folder / _METADATA).files]

    def read_image(self, path: Path) -> Tensor:
        """Decode another module's file as :meth:`load` does the set's own, uint8 (1, H, W).

        Raises:
            DataError: If it cannot be read, or is not 24x40.
        """
        image = _read_image(path)[None].copy()  # tensors want arrays that may be written
        return torch.from_numpy(_resized(image, self._size)[0])

    def load(self) -> Pool:
        """Return the images, one grey channel of 40 rows and 24 columns, or resized."""
        return self.describe(without=(), refuse=refuse)

    def describe(
        self,
        *,
        without: Collection[Path],
        refuse: Refuse,  # noqa: ARG002 - there is nothing else to refuse
    ) -> Pool:
        """Return the images but some files that cannot be read.

        Raises:
            DataError: If there is no other, or test has none.
        """
        folder = self._folder()
        files, labels = _read_metadata(folder / _METADATA)
        num_named = len(files)
        if without:
            left_out = set(without)
            kept = [at for at, file in enumerate(files) if folder / file not in left_out]
            files, labels = [files[at] for at in kept], labels[kept]
        if not files:
            raise DataError(f"{folder}: no image can be read")
        images = decoded_once(
            self._root / "cache" / "infrared_solar", [folder / file for file in files], _read_image
        )
        _, groups = np.unique(_as_keys(images), return_inverse=True)
        drawn = draw_test(
            labels,
            groups,
            fraction=self._test_fraction,
            prior=self._test_prior,
            seed=self._split_seed,
        )
        pixels = _resized(images[:, None], self._size)

        def part(index: np.ndarray) -> Labelled:
            names = np.array([os.fsencode(file) for file in files])
            return Labelled.of(pixels, labels, groups, index=index, names=names, contents=groups)

        return Pool(
            train=part(drawn.train),
            test=part(drawn.test),
            class_names=_NAMES,
            title="InfraredSolarModules",
            notes=(
                *_count_notes(labels, folder / "images", num_named=num_named),
                prior_note(labels[drawn.test], self._test_prior),
            ),
            group_kind="image content",
        )

    def _folder(self) -> Path:
        return find_unpacked(
            self._root,
            self._path,
            names=("infrared_solar", "InfraredSolarModules"),
            holds=("images", _METADATA),
            source=_SOURCE,
        )


class _Listed(NamedTuple):
    files: list[str]
    labels: np.ndarray


def _read_metadata(path: Path) -> _Listed:
    """Read ``{number: {image_filepath, anomaly_class}}``, in the order of the numbers."""
    with readable(path):
        content = path.read_bytes()
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}): unpack {_SOURCE} anew") from error
    if not isinstance(entries, dict) or not entries:
        what = f"is {kind_of(entries)}" if entries else "names no image"
        raise DataError(f"{path} {what}: expected {_FORM}; unpack {_SOURCE} anew")
    for key in entries:
        if not (key.isascii() and key.isdecimal()):
            raise DataError(f"{path} has the key {key!r}, which is no number: expected {_FORM}")
    rows = {key: entries[key] for key in sorted(entries, key=lambda key: (len(key), key))}
    files = [_text(path, key, row, "image_filepath") for key, row in rows.items()]
    classes = [_text(path, key, row, "anomaly_class") for key, row in rows.items()]
    for file in files:
        if file.startswith("/") or ".." in file.split("/"):
            raise DataError(f"{path} names {file}, which leads out of {path.parent}")
    for unknown in sorted(set(classes) - set(_NAMES))[:1]:
        raise DataError(f"{path} has the class {unknown!r}: expected one of {', '.join(_NAMES)}")
    return _Listed(files, np.array([_NAMES.index(name) for name in classes], dtype=np.int64))


def _text(path: Path, key: str, row: object, name: str) -> str:
    """Return a text of an entry of the metadata."""
    if not isinstance(row, dict):
        raise DataError(f"{path}: the entry {key!r} is {kind_of(row)}: expected {_FORM}")
    if name not in row:
        raise DataError(f"{path}: the entry {key!r} has no {name}: expected {_FORM}")
    text = row[name]
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        found = ascii(text) if isinstance(text, str) else kind_of(text)
        raise DataError(f"{path}: {name} of the entry {key!r} is {found}: expected {_FORM}")
    return text


def _read_image(path: Path) -> np.ndarray:
    """Decode a file, uint8 (1, 40, 24)."""
    image = decode_grey(path)
    if image.shape != (_HEIGHT, _WIDTH):
        height, width = image.shape
        raise DataError(f"{path} is {width}x{height} pixels: expected {_WIDTH}x{_HEIGHT}")
    return image[None]


def _resized(images: np.ndarray, size: int | None) -> np.ndarray:
    """Return uint8 images (N, 1, 40, 24) as (N, 1, size, size); as they are for None."""
    if size is None:
        return images
    found = np.empty((len(images), 1, size, size), dtype=np.uint8)
    for start in range(0, len(images), _CHUNK):
        chunk = torch.from_numpy(images[start : start + _CHUNK])
        found[start : start + _CHUNK] = transforms.resize(chunk, [size, size], antialias=True)
    return found


def _as_keys(images: np.ndarray) -> np.ndarray:
    """Return the pixels of each image as one value (N,), equal where all pixels are."""
    flat = np.ascontiguousarray(images.reshape(len(images), -1))
    return flat.view(f"V{flat.shape[1]}").ravel()


def _count_notes(labels: np.ndarray, folder: Path, *, num_named: int) -> list[str]:
    """Say where the metadata, which name so many files, or the files are not the whole set's."""
    counts = np.bincount(labels, minlength=len(_NAMES)).tolist()
    other = [
        f"{name} {count:,} of {whole:,}"
        for (name, whole), count in zip(_COUNTS.items(), counts, strict=True)
        if count != whole
    ]
    notes = [f"not the whole set: {', '.join(other)}"] if other else []
    unnamed = sum(1 for _ in folder.glob("*.jpg")) - num_named
    if unnamed > 0:
        notes.append(f"{unnamed:,} files of {folder} are not in {_METADATA}, and not used")
    return notes
