"""Digits: 1,797 handwritten digits of 8x8 pixels that ship inside scikit-learn."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge

from data._base import DataError, Labelled, Pool
from data._permutation import fixed_permutation

_TEST_DRAW = 0xD161  # the key of the test split, which no config key changes
_BRIGHTEST = 16
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Digits:
    """scikit-learn's digits (the test half of UCI's optical recognition set), one grey channel.

    The set has no test split of its own: one is drawn, the same for every run.

    Args:
        test_per_class: Test images of each class.

    Raises:
        DataError: If a class has no more images than that.
    """

    def __init__(self, *, test_per_class: Annotated[int, Ge(1)] = 50) -> None:
        self._test_per_class = test_per_class

    def load(self) -> Pool:
        """Return the digits, 0..16 scaled to 0..255."""
        rows = _rows()
        pixels, labels = rows[:, :-1], rows[:, -1]
        scaled = np.rint(pixels.reshape(-1, 1, 8, 8) * (255 / _BRIGHTEST)).astype(np.uint8)
        is_test = np.zeros(len(labels), dtype=bool)
        for label in range(len(_NAMES)):
            own = np.flatnonzero(labels == label)
            if len(own) <= self._test_per_class:
                raise DataError(
                    f"data.test_per_class={self._test_per_class} leaves class {label}_"
                    f"{_NAMES[label]} no training image: it has {len(own)} images in all"
                )
            order = fixed_permutation(len(own), key=(_TEST_DRAW, label))
            is_test[own[order[: self._test_per_class]]] = True
        images, targets = torch.from_numpy(scaled), torch.from_numpy(labels.astype(np.int64))
        return Pool(
            train=Labelled(images[~is_test], targets[~is_test]),
            test=Labelled(images[is_test], targets[is_test]),
            class_names=_NAMES,
            title="Digits",
        )


def _rows() -> npt.NDArray[np.float64]:
    """Return (1797, 65): 64 pixels and the label, from the file that ``load_digits`` reads.

    Read without scikit-learn, whose import takes longer than loading, training and testing for
    some epochs: it brings SciPy's statistics and pandas.
    """
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.origin is not None, "scikit-learn is not installed"
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(file, "rt", encoding="ascii") as lines:
        return np.loadtxt(lines, delimiter=",")
