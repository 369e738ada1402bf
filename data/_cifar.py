"""What CIFAR-10 and CIFAR-100 share: torchvision's reader and its checksums."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from data._base import DataError, Labelled, Pool

# Those of LDAM-DRW (cifar_train.py), which uses them for both data sets.
_MEAN = (0.4914, 0.4822, 0.4465)
_STD = (0.2023, 0.1994, 0.2010)
_FOLDERS = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}


def load_cifar(root: Path, name: Literal["CIFAR10", "CIFAR100"], *, download: bool) -> Pool:
    """Read a CIFAR data set as torchvision lays it out; images in the order of its batches.

    Raises:
        DataError: If the files are missing, do not match their checksums or cannot be fetched.
    """
    folder = root / _FOLDERS[name]
    title = name.replace("CIFAR", "CIFAR-")
    if not download and not folder.is_dir():
        raise DataError(
            f"{title} is missing: looked for {folder}; set data.download=true, or unpack the "
            f"archive of its Python version there"
        )
    from torchvision import datasets

    parts = []
    for is_train in (True, False):
        try:
            part = getattr(datasets, name)(root, train=is_train, download=download)
        except (OSError, RuntimeError) as error:
            reason = "it could not be downloaded" if download else "a file is missing or damaged"
            raise DataError(
                f"{title} cannot be read from {folder}: {reason} "
                f"({str(error).partition(chr(10))[0]})"
            ) from error
        parts.append(part)
    train, test = parts
    return Pool(
        train=_labelled(train.data, train.targets),
        test=_labelled(test.data, test.targets),
        class_names=tuple(train.classes),
        title=title,
        mean=_MEAN,
        std=_STD,
    )


def _labelled(pixels: np.ndarray, targets: list[int]) -> Labelled:
    """Turn (N, H, W, C) into (N, C, H, W)."""
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    return Labelled(images, torch.tensor(targets))
