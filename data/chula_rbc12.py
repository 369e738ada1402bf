"""Chula RBC-12: red blood cells in smears of 640x480 pixels (Naruenatthanaset et al. 2021)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval, Lt
from torch import Tensor

from data._array_cache import decoded_once
from data._base import DataError, Labelled, Pool, Refuse, refuse
from data._decode import decode
from data._folder import readable
from data._groups import draw_test
from data._notes import prior_note
from data._origin import find_unpacked

_SOURCE = "github.com/Chula-PIC-Lab/Chula-RBC-12-Dataset"
_NUM_CELLS = 22_106
# The README's numbers 0 to 12: twelve types of the paper and, added later, elliptocytes.
_NAMES = (
    "Normal cell",
    "Macrocyte",
    "Microcyte",
    "Spherocyte",
    "Target cell",
    "Stomatocyte",
    "Ovalocyte",
    "Teardrop",
    "Burr cell",
    "Schistocyte",
    "uncategorised",
    "Hypochromia",
    "Elliptocyte",
)


class ChulaRbc12:
    """Red blood cells of 13 types, cut out of labelled blood smears, as 8-bit RGB.

    The set is long-tailed by nature, 6,330 normal cells to 184 uncategorised ones (factor 34), and
    has no test split: one is drawn by smear, as balanced over the classes as smears allow. Windows
    of neighbouring cells overlap, and cells of a smear share its stain, so that a smear is never
    in two splits; 21 smears that the set holds twice, under two numbers with other cells labelled,
    count as one each. Which smears are of one patient is not known. Elliptocytes are alone in 32
    smears of another stain and file format: a model may know them by the smear.

    Args:
        path: The folder with Dataset/ and Label/; by default chula_rbc12 or Chula-RBC-12-Dataset
            below the data root.
        window: Side in pixels of the window cut around a cell's centre. A cell is about 70 wide,
            so that 80 shows all of it and little of its neighbours. Beyond the edge of a smear it
            has the smear's median colour.
        size: Side that windows are resized to; a quarter of the pixels trains in a quarter of the
            time. The side of the window keeps them as they are.
        test_fraction: Share of each class that the smears of the test split are to have.
        test_prior: Class shares of the test split: natural keeps those of the data set; balanced
            keeps as many cells of each type as the rarest has, a part of the natural one.
        split_seed: Seed of the test split, apart from all others.

    Raises:
        DataError: If the files are missing, damaged, or of another form.
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
        window: Annotated[int, Interval(ge=8, le=480)] = 80,
        size: Annotated[int, Interval(ge=8, le=480)] = 40,
        test_fraction: Annotated[float, Gt(0), Lt(1)] = 0.25,
        test_prior: Literal["natural", "balanced"] = "natural",
        split_seed: Annotated[int, Ge(0), Lt(2**32)] = 0,
    ) -> None:
        self._root, self._path = root, path
        self._window, self._size = window, size
        self._test_fraction = test_fraction
        self._test_prior = test_prior
        self._split_seed = split_seed

    def files(self) -> list[Path]:
        """Return the smears that have labelled cells."""
        return [smear.image for smear in _read_smears(self._folder())]

    def read_image(self, path: Path) -> Tensor:
        """Decode a window that was cut around a cell as :meth:`load` cuts them, uint8 (3, H, W).

        Raises:
            DataError: If it cannot be read, or is no window but a smear, say.
        """
        image = decode(path, size=None)
        height, width = image.shape[1:]
        if (height, width) != (self._window, self._window):
            raise DataError(
                f"{path} is {width}x{height} pixels: this run takes windows of "
                f"{self._window}x{self._window} around one cell each; cut them out"
            )
        return _resized(image[None], self._size)[0]

    def load(self) -> Pool:
        """Return the cells, smear by smear."""
        return self.describe(without=(), refuse=refuse)

    def describe(
        self,
        *,
        without: Collection[Path],
        refuse: Refuse,  # noqa: ARG002 - there is nothing else to refuse
    ) -> Pool:
        """Return the cells but those of some smears that cannot be read.

        Raises:
            DataError: If there is no other, or test has none.
        """
        left_out = set(without)
        smears = [own for own in _read_smears(self._folder()) if own.image not in left_out]
        if not smears:
            raise DataError(f"{self._folder()}: no image can be read")
        cells = {smear.image: smear for smear in smears}

        def cut(path: Path) -> np.ndarray:
            centres = cells[path].cells[:, :2]
            return _windows(path, centres, window=self._window, size=self._size)

        cells_of = np.concatenate([smear.cells for smear in smears])
        images = decoded_once(
            self._root / "cache" / "chula_rbc12",
            [smear.image for smear in smears],
            cut,
            options=f"median {self._window} {self._size} {cells_of[:, :2].tolist()}",
        )
        labels = cells_of[:, 2]
        groups = np.repeat(_same_smears(smears), [len(smear.cells) for smear in smears])
        drawn = draw_test(
            labels,
            groups,
            fraction=self._test_fraction,
            prior=self._test_prior,
            seed=self._split_seed,
        )
        names = np.repeat(
            np.array([f"Dataset/{smear.image.name}" for smear in smears], dtype=bytes),
            [len(smear.cells) for smear in smears],
        )
        return Pool(
            train=Labelled.of(images, labels, groups, index=drawn.train, names=names),
            test=Labelled.of(images, labels, groups, index=drawn.test, names=names),
            class_names=_NAMES,
            title="Chula RBC-12",
            notes=(
                *_notes(smears, len(labels), groups),
                *_unlabelled_notes(self._folder()),
                prior_note(labels[drawn.test], self._test_prior),
            ),
            group_kind="smear",
        )

    def _folder(self) -> Path:
        return find_unpacked(
            self._root,
            self._path,
            names=("chula_rbc12", "Chula-RBC-12-Dataset"),
            holds=("Dataset", "Label"),
            source=_SOURCE,
        )


class _Smear(NamedTuple):
    image: Path
    cells: np.ndarray  # (n, 3) int64: x, y, type


def _read_smears(folder: Path) -> list[_Smear]:
    """Read the labelled smears that have cells, by number."""
    with readable(folder / "Label"):
        files = [f for f in (folder / "Label").glob("*.txt") if f.stem.isdecimal()]
    smears = []
    for file in sorted(files, key=lambda f: int(f.stem)):
        cells = _read_cells(file)
        if len(cells):
            smears.append(_Smear(folder / "Dataset" / f"{file.stem}.jpg", cells))
    if not smears:
        raise DataError(f"{folder / 'Label'} labels no cell: unpack {_SOURCE} anew")
    return smears


def _read_cells(file: Path) -> np.ndarray:
    """Read lines of ``x y type``, int64 (n, 3)."""
    with readable(file):
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    cells = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        try:
            x, y, kind = map(int, words)
        except ValueError as error:
            raise DataError(f"{file}:{number}: expected x, y and type, not {line!r}") from error
        if not 0 <= kind < len(_NAMES):
            raise DataError(f"{file}:{number}: type {kind}: they go from 0 to {len(_NAMES) - 1}")
        cells.append((x, y, kind))
    return np.array(cells, dtype=np.int64).reshape(-1, 3)


def _windows(path: Path, centres: np.ndarray, *, window: int, size: int) -> np.ndarray:
    """Cut a window around each centre (n, 2) of x and y, uint8 (n, 3, size, size)."""
    smear = decode(path, size=None).numpy()
    height, width = smear.shape[1:]
    outside = (centres < 0).any(1) | (centres >= (width, height)).any(1)
    for x, y in centres[outside][:1]:
        raise DataError(f"{path} is {width}x{height} pixels: a cell at ({x}, {y}) is outside")
    before = window // 2
    shape = (3, height + window, width + window)
    padded = np.broadcast_to(np.median(smear, axis=(1, 2)).astype(np.uint8)[:, None, None], shape)
    padded = padded.copy()
    padded[:, before : before + height, before : before + width] = smear
    # In the padded smear the window of (x, y) begins at that very place.
    cut = np.stack([padded[:, y : y + window, x : x + window] for x, y in centres])
    return _resized(torch.from_numpy(cut), size).numpy()


def _resized(windows: Tensor, size: int) -> Tensor:
    """Return square windows (n, 3, H, H) at ``size`` pixels a side."""
    from torchvision.transforms.v2 import functional as transforms

    if windows.shape[-1] == size:
        return windows
    return transforms.resize(windows, [size, size], antialias=True)


def _same_smears(smears: list[_Smear]) -> np.ndarray:
    """Return one number for each smear (n,), the same for files of the same content."""
    contents: dict[bytes, int] = {}
    numbers = []
    for smear in smears:
        with readable(smear.image), smear.image.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        numbers.append(contents.setdefault(digest, len(contents)))
    return np.array(numbers)


def _notes(smears: list[_Smear], num_cells: int, groups: np.ndarray) -> tuple[str, ...]:
    """Say what is not the whole set, and how many smears are there twice."""
    notes = []
    if num_cells != _NUM_CELLS:
        notes.append(f"not the whole set: {num_cells:,} of {_NUM_CELLS:,} cells")
    if repeated := len(smears) - len(np.unique(groups)):
        notes.append(f"{repeated} of {len(smears)} smears repeat another, and count as that one")
    return tuple(notes)


def _unlabelled_notes(folder: Path) -> list[str]:
    """Say how many images have no label file, or one without cells."""
    with readable(folder):
        images = {file.stem for file in (folder / "Dataset").glob("*.jpg")}
        labels = [file for file in (folder / "Label").glob("*.txt") if file.stem in images]
        num_empty = sum(not file.read_bytes().split() for file in labels)
    parts = {"without a label file": len(images) - len(labels), "without cells in it": num_empty}
    said = [f"{what}: {num:,}" for what, num in parts.items() if num]
    return [f"not used of {len(images):,} images: {'; '.join(said)}"] if said else []
