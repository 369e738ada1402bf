"""What a run says of image files: a table on the screen, and a CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from engine.config.messages import one_line
from engine.report.statistics import DASH


@dataclass(frozen=True)
class Answers:
    """Class probabilities of image files.

    Attributes:
        files: N of them.
        probabilities: (N, C) float64.
        class_names: C names in label order.
        features: (N, D) float32, or None where nobody asked for them.
        sets: (N, C) which classes are in each file's prediction set, or None.
    """

    files: Sequence[Path]
    probabilities: np.ndarray
    class_names: Sequence[str]
    features: np.ndarray | None = None
    sets: np.ndarray | None = None

    def set_of(self, number: int) -> list[str]:
        """Return the classes in the set of a file, the most probable first."""
        assert self.sets is not None
        labels = np.flatnonzero(self.sets[number])
        order = np.argsort(-self.probabilities[number][labels], kind="stable")
        return [self.class_names[label] for label in labels[order]]

    def table(self, *, top: int, limit: int | None = None) -> Table:
        """Return the ``top`` classes of each of the first ``limit`` files."""
        top = min(top, len(self.class_names))
        own = [] if self.sets is None else ["set"]
        table = Table("file", *(f"{k + 1}." for k in range(top)), *own, box=SIMPLE_HEAD)
        rows = zip(self.files[:limit], self.probabilities, strict=False)
        for number, (file, row) in enumerate(rows):
            best = np.argsort(-row, kind="stable")[:top]
            cells = [f"{self.class_names[label]} {row[label]:.3f}" for label in best]
            if self.sets is not None:
                cells.append(", ".join(self.set_of(number)) or DASH)
            table.add_row(*(Text(one_line(cell)) for cell in (_name(file), *cells)))
        return table

    def csv(self, *, true_classes: Sequence[str] | None = None) -> str:
        """Return a header and a line for each file: file, predicted, probability, each class.

        Where there are sets a column ``set`` comes before the classes; in it they are divided by
        ``|``.

        Args:
            true_classes: the class of each file, where it is known: a column ``class`` after
                ``file``.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        known = ["class"] if true_classes is not None else []
        kept = ["set"] if self.sets is not None else []
        writer.writerow(["file", *known, "predicted", "probability", *kept, *self.class_names])
        for number, (file, row) in enumerate(zip(self.files, self.probabilities, strict=True)):
            label = int(row.argmax())
            own = [true_classes[number]] if true_classes is not None else []
            top, *values = (f"{value:.9g}" for value in (row[label], *row))
            inside = ["|".join(self.set_of(number))] if self.sets is not None else []
            writer.writerow([_name(file), *own, self.class_names[label], top, *inside, *values])
        return text.getvalue()

    def npz(self) -> bytes:
        """Return the arrays files, features, probabilities and class_names as an ``.npz`` file."""
        assert self.features is not None
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            files=np.array([_name(file) for file in self.files]),
            features=self.features,
            probabilities=self.probabilities,
            class_names=np.array(self.class_names),
        )
        return buffer.getvalue()


def _name(file: Path) -> str:
    """Return a path as text, bytes of it that are no UTF-8 escaped."""
    return os.fsencode(file).decode("utf-8", "backslashreplace")
