"""What a run is worth on labelled images: tables on the screen, a JSON file and a CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from engine.config.messages import counted, one_line
from engine.prediction.answers import Answers
from engine.prediction.model import Model
from engine.report.seeds import headings
from engine.report.statistics import DASH
from engine.report.terminal import CLASSES_SHOWN, class_table
from engine.training.build import group_limits
from engine.training.metrics import Metrics, evaluate
from engine.training.summary import ClassResult, class_results, defined


@dataclass(frozen=True)
class Scores:
    """Answers and what they are worth.

    Attributes:
        model: that gave them.
        answers: N files with their probabilities.
        targets: (N,) labels.
        metrics: of all of them; groups are those of the run's training images.
        remarks: sentences that a reader of the numbers needs.
    """

    model: Model
    answers: Answers
    targets: np.ndarray
    metrics: Metrics
    remarks: Sequence[str]

    @classmethod
    def of(
        cls, model: Model, answers: Answers, *, targets: np.ndarray, remarks: Sequence[str]
    ) -> Scores:
        """Return the scores of answers whose labels (N,) are ``targets``."""
        counts = model.class_counts
        limits = group_limits(model.run.config)
        metrics = evaluate(
            answers.probabilities,
            targets,
            counts,
            ranking=True,
            limits=limits,
            threshold=model.run.threshold,
        )
        return cls(model, answers, targets, metrics, (*remarks, *limits.notes))

    @property
    def classes(self) -> tuple[ClassResult, ...]:
        """Return the numbers of each class, in label order."""
        names = self.model.class_names
        return class_results(self.metrics, names=names, class_counts=self.model.class_counts)

    @property
    def title(self) -> str:
        """Return how many images of how many classes there are, and which weights answered."""
        num_classes = len(np.unique(self.targets))
        images = counted(len(self.targets), "image")
        return f"{images} of {counted(num_classes, 'class', 'classes')}, {self.model.origin}"

    def tables(self) -> Iterator[Table]:
        """Yield the classes, the metrics and, of few classes, what was taken for what."""
        yield class_table(self.classes, title="by class")
        scalars = {name: defined_or_none(value) for name, value in self.metrics.scalars.items()}
        table = Table("metric", box=SIMPLE_HEAD)
        table.add_column("value", justify="right")
        for name, heading in headings(scalars, self.metrics.group_sizes).items():
            value = scalars[name]
            table.add_row(heading, DASH if value is None else f"{value:.3f}")
        yield table
        shown = self._shown()
        if self.metrics.confusion is not None and len(shown) <= CLASSES_SHOWN:
            yield self._confusion_table(self.metrics.confusion, shown)

    def _shown(self) -> list[int]:
        """Return the labels that are there or were answered."""
        return np.union1d(self.targets, self.answers.probabilities.argmax(axis=1)).tolist()

    def _confusion_table(self, confusion: np.ndarray, shown: Sequence[int]) -> Table:
        names = [Text(one_line(self.model.class_names[label])) for label in shown]
        table = Table("true class, predicted:", box=SIMPLE_HEAD)
        for name in names:
            table.add_column(name, justify="right")
        for name, label in zip(names, shown, strict=True):
            table.add_row(name, *(str(confusion[label, other]) for other in shown))
        return table

    def json(self, *, source: Sequence[Path]) -> dict[str, Any]:
        """Return all numbers; undefined ones are None.

        Args:
            source: the folders and lists that were named.
        """
        confusion = self.metrics.confusion
        return {
            "run": str(self.model.folder),
            "rule": self.model.run.rule,
            "epoch": self.model.run.epoch,
            "tau": self.model.tau,
            "source": [str(path) for path in source],
            "num_images": len(self.targets),
            "remarks": list(self.remarks),
            "metrics": {n: defined_or_none(v) for n, v in self.metrics.scalars.items()},
            "group_sizes": self.metrics.group_sizes,
            "classes": [row.model_dump(mode="json") for row in self.classes],
            "confusion": None if confusion is None else confusion.tolist(),
        }

    def csv(self) -> str:
        """Return the answers as CSV, each with the class of its image."""
        names = self.model.class_names
        return self.answers.csv(true_classes=[names[label] for label in self.targets])


def defined_or_none(value: float | None) -> float | None:
    """Return a number, or None for an undefined one."""
    return None if value is None else defined(value)
