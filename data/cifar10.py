"""CIFAR-10: 60,000 colour pictures, 32x32, of 10 classes (Krizhevsky 2009)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from data._base import Pool
from data._cifar import load_cifar


class Cifar10:
    """CIFAR-10 as torchvision lays it out below the data root, every file's checksum verified.

    Args:
        download: Fetch the archive through torchvision, which verifies its checksum, if it is
            missing.

    Raises:
        DataError: If the files are missing or damaged.
    """

    shared_defaults: ClassVar[dict[str, object]] = {
        "imbalance.factor": 100.0,
        "validation.per_class": 100,
        "augment.crop": 4,
        "augment.flip": True,
    }

    def __init__(self, root: Path, *, download: bool = False) -> None:
        self._root = root
        self._download = download

    def load(self) -> Pool:
        """Return the images in the order of torchvision's batches."""
        return load_cifar(self._root, "CIFAR10", download=self._download)
