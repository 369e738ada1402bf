"""The data card on the page of a run: what its data are, and what their test split can show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.report.data_facts import (
    class_sentence,
    data_facts,
    explanations,
    headings,
    rows,
    sentences,
)
from engine.report.predictions_file import read_predictions_file
from engine.report.reading import Run
from engine.training.run_folder import RunFolder
from engine.training.summary import ClassResult

if TYPE_CHECKING:
    from engine.training.repeats import Repeats


@dataclass(frozen=True)
class DataCard:
    """What the page says of the data.

    Attributes:
        facts: a word and a sentence each.
        headings: of the table of classes.
        rows: a class each, by falling training count.
        explanations: what the numbers mean.
    """

    facts: list[tuple[str, str]]
    headings: list[str]
    rows: list[list[str]]
    explanations: list[str]


def data_card(run: Run, *, repeats: Repeats | None) -> DataCard | None:
    """Return the card of the data that a run was made with, from its folder.

    Args:
        run: from :func:`engine.report.reading.read_run`.
        repeats: images that are there more than once; None where nobody looked.

    Returns:
        None for a run whose training split is empty.

    Raises:
        ConfigError: a file of predictions is damaged.
    """
    result = run.summary.result
    classes = [c for c in result.classes if c.train_images or c.support]
    if not any(c.train_images for c in classes):
        return None
    place = RunFolder(run.folder).predictions
    test = read_predictions_file(place / f"test.{run.summary.headline}.npz")
    labels = np.array([c.label for c in classes])
    counts = {"train": np.array([c.train_images for c in classes])}
    if (validation := place / f"val.{run.summary.headline}.npz").is_file():
        counts["val"] = _counts(read_predictions_file(validation).targets, labels)
    counts["test"] = _counts(test.targets, labels)
    facts = data_facts(
        counts,
        names=[c.name for c in classes],
        masks=_masks(classes),
        test_targets=np.searchsorted(labels, test.targets),
        groups={"test": test.groups},
        repeats=repeats,
    )
    return DataCard(
        facts=[("classes", class_sentence(facts)), *sentences(facts)],
        headings=headings(facts),
        rows=rows(facts),
        explanations=explanations(facts),
    )


def _counts(targets: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the images (C,) of each of some labels, ascending."""
    return np.bincount(targets, minlength=int(labels[-1]) + 1)[labels]


def _masks(classes: list[ClassResult]) -> dict[str, np.ndarray]:
    """Return which classes (C,) have many, medium and few training images."""
    return {
        name: np.array([c.group == name for c in classes]) for name in ("many", "medium", "few")
    }
