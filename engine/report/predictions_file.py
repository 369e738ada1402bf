"""The files of predictions of a finished run, as arrays."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
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


@dataclass(frozen=True, eq=False)
class ClassifierFile:
    """What ``evaluate.store_features`` keeps beside the features: C classes, D numbers an image.

    Attributes:
        means: (C, D) mean features of each class's training images; zeros without any.
        unit_means: (C, D) the same of features scaled to length 1.
        weight: (C, D) of a linear head; None of another.
        bias: (C,) of it.
    """

    means: np.ndarray
    unit_means: np.ndarray
    weight: np.ndarray | None
    bias: np.ndarray | None


def read_classifier_file(file: Path) -> ClassifierFile:
    """Return the arrays of ``predictions/classifier.<rule>.npz``.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is damaged.
    """
    with _damage_named(file), file.open("rb") as opened, np.load(opened) as stored:
        linear = {k: stored[k] if k in stored.files else None for k in ("weight", "bias")}
        return ClassifierFile(stored["means"], stored["unit_means"], **linear)


def read_features_file(file: Path) -> np.ndarray:
    """Return the features (N, D) float32 of ``predictions/<split>.<rule>.features.npy``.

    They stay on the disk until they are used.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is damaged.
    """
    with _damage_named(file):
        found: np.ndarray = np.load(file, mmap_mode="r")
        return found


def read_predictions_file(file: Path) -> PredictionsFile:
    """Return the arrays of ``predictions/<split>.<rule>.npz`` and of the ``.logits.npy`` beside it.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it, or the file of its logits, is damaged or missing.
    """
    beside = file.with_suffix(".logits.npy")
    # NumPy leaves a file open that it cannot read.
    with _damage_named(file):
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


@contextlib.contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    # What is left of a file, and what random bytes in one make of it, fails in all these ways.
    except (
        *(OSError, ValueError, KeyError, EOFError, zlib.error),
        *(zipfile.BadZipFile, NotImplementedError),
    ) as error:
        raise ConfigError([f"{file}: is damaged; put it back, or train again"]) from error
