"""Fashion-MNIST: 70,000 grey pictures of clothes, 28x28 (Xiao et al. 2017)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

from data._base import DataError, Labelled, Pool
from data._idx import read_idx

_SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of Debian's dataset-fashion-mnist
_SIDE = 28
_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


class FashionMnist:
    """The original idx files of Fashion-MNIST, plain or .gz.

    They are looked for in fashion_mnist and FashionMNIST/raw (torchvision's layout) below the
    data root, and where Debian's package dataset-fashion-mnist puts them.

    Args:
        download: Fetch the files through torchvision, which verifies their checksums, if they
            are missing.

    Raises:
        DataError: If the files are missing or damaged.
    """

    shared_defaults: ClassVar[dict[str, object]] = {
        "imbalance.factor": 100.0,
        "validation.per_class": 100,
        "augment.crop": 2,
        "augment.flip": True,
    }

    def __init__(self, root: Path, *, download: bool = False) -> None:
        self._root = root
        self._download = download

    def load(self) -> Pool:
        """Return the images, one grey channel."""
        folder = self._find()
        return Pool(
            train=_read_split(folder, "train"),
            test=_read_split(folder, "t10k"),
            class_names=_NAMES,
            title="Fashion-MNIST",
        )

    def _find(self) -> Path:
        fetched = self._root / "FashionMNIST" / "raw"
        places = [self._root / "fashion_mnist", fetched, _SYSTEM_FOLDER]
        for folder in places:
            if all(_file(folder, name) for name in _FILES):
                return folder
        if self._download:
            _fetch(self._root)
            return fetched
        listed = ", ".join(str(folder) for folder in places)
        raise DataError(
            f"Fashion-MNIST is missing: looked for its four idx files in {listed}; install "
            "Debian's package dataset-fashion-mnist or set data.download=true"
        )


_FILES = tuple(
    f"{part}-{content}-ubyte"
    for part in ("train", "t10k")
    for content in ("images-idx3", "labels-idx1")
)


def _file(folder: Path, name: str) -> Path | None:
    """Return the plain file, else the packed one, else None."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def _read_split(folder: Path, part: str) -> Labelled:
    paths = [_file(folder, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
    image_path, label_path = (path for path in paths if path is not None)
    images = read_idx(image_path, num_dimensions=3)
    labels = read_idx(label_path, num_dimensions=1)
    if images.shape[1:] != (_SIDE, _SIDE):
        height, width = images.shape[1:]
        raise DataError(f"{image_path} has images of {width}x{height}, not {_SIDE}x{_SIDE} pixels")
    if len(images) != len(labels):
        raise DataError(f"{label_path} has {len(labels)} labels for {len(images)} images")
    if labels.max(initial=0) >= len(_NAMES):
        raise DataError(f"{label_path} has label {labels.max()}: they go from 0 to 9")
    return Labelled(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long())


def _fetch(root: Path) -> None:
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(root, download=True)
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"Fashion-MNIST could not be downloaded ({reason})") from error
