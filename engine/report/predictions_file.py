"""The file of predictions of a finished run, as arrays."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.config.mistakes import ConfigError


@dataclass(frozen=True, eq=False)
class PredictionsFile:
    """What a run stored of the N images of a split, with C classes.

    Attributes:
        logits: (N, C) float32; of a model with one output (0, x). Where they are many, a memory map
            of a file of their own.
        targets: (N,) labels.
        index: (N,) positions of the images in the data set's own list.
        groups: (N,) groups of images that belong together; None where none are known.
    """

    logits: np.ndarray
    targets: np.ndarray
    index: np.ndarray
    groups: np.ndarray | None = None


def read_predictions_file(file: Path) -> PredictionsFile:
    """Return the arrays of ``predictions/<split>.<rule>.npz`` and of the ``.logits.npy`` beside it.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it, or the file of its logits, is damaged or missing.
    """
    beside = file.with_suffix(".logits.npy")
    try:
        # NumPy leaves a file open that it cannot read.
        with file.open("rb") as opened, np.load(opened) as stored:
            targets, index = stored["targets"], stored["index"]
            groups = stored["groups"] if "groups" in stored.files else None
            logits = stored["logits"] if "logits" in stored.files else None
        if logits is None:
            if not beside.is_file():
                raise ConfigError([f"{beside}: is missing; put it back, or train again"])
            logits = np.load(beside, mmap_mode="r")
        if logits.ndim != 2 or not len(logits) == len(targets) == len(index):
            raise ValueError("arrays of different lengths")
        return PredictionsFile(logits, targets, index, groups)
    except FileNotFoundError:
        raise
    # What is left of a file, and what random bytes in one make of it, fails in all these ways.
    except (
        *(OSError, ValueError, KeyError, EOFError, zlib.error),
        *(zipfile.BadZipFile, NotImplementedError),
    ) as error:
        raise ConfigError([f"{file}: is damaged; put it back, or train again"]) from error
