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
        logits: (N, C) float32; of a model with one output (0, x).
        targets: (N,) labels.
        index: (N,) positions of the images in the data set's own list.
        groups: (N,) groups of images that belong together; None where none are known.
    """

    logits: np.ndarray
    targets: np.ndarray
    index: np.ndarray
    groups: np.ndarray | None = None


def read_predictions_file(file: Path) -> PredictionsFile:
    """Return the arrays of ``predictions/<split>.<rule>.npz``.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is damaged.
    """
    try:
        # NumPy leaves a file open that it cannot read.
        with file.open("rb") as opened, np.load(opened) as stored:
            logits, targets, index = (stored[name] for name in ("logits", "targets", "index"))
            groups = stored["groups"] if "groups" in stored.files else None
            return PredictionsFile(logits, targets, index, groups)
    except FileNotFoundError:
        raise
    # What is left of a file, and what random bytes in one make of it, fails in all these ways.
    except (
        *(OSError, ValueError, KeyError, EOFError, zlib.error),
        *(zipfile.BadZipFile, NotImplementedError),
    ) as error:
        raise ConfigError([f"{file}: is damaged; put it back, or train again"]) from error
