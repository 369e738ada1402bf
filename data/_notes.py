"""What the user is told about the splits."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from data._base import Classes, Labelled, Pool, Split

_MOST_NOTES = 5  # classes named one by one before a note sums them up
_MOST_NAMED = 20  # classes listed in one note
SHARED_GROUPS = "images of one group are in two splits"
OWN_SHARES = "test has the data set's own class shares"


@dataclass(frozen=True)
class Validation:
    """What is held out of training; without either key there is no validation split.

    Args:
        per_class: Balanced: validation images of every class, from what training leaves over.
        fraction: Not balanced: this share of each class's training images, as nearly as whole
            groups allow.
        group: Where the data set knows which images belong together (smear, patient, track), hold
            out whole groups; false draws image by image, and tables say what that mixes.
    """

    per_class: Annotated[int, Ge(1)] | None = 20
    fraction: Annotated[float, Gt(0), Lt(1)] | None = None
    group: bool = True

    def __bool__(self) -> bool:
        return self.per_class is not None or self.fraction is not None


class Plan(NamedTuple):
    """Which images of the training list go where.

    Args:
        train: Positions of the training images.
        val: Positions of the validation images.
        drawn: (C,) training images of each class before validation took its own.
        kept: (C,) training images of each class.
        num_spared: Images of held-out groups that neither training nor validation takes.
        is_drawn: Whether the seed of the imbalance had a choice: some class has more images than
            it trains on.
    """

    train: np.ndarray
    val: np.ndarray
    drawn: np.ndarray
    kept: np.ndarray
    num_spared: int
    is_drawn: bool


def sacrifice_notes(
    plan: Plan, class_names: tuple[str, ...], *, labels: Sequence[int]
) -> list[str]:
    """Name the classes in training that gave up images to validation."""
    drawn, kept = plan.drawn, plan.kept
    given = drawn - kept
    giving = [label for label in labels if given[label]]
    if len(giving) > _MOST_NOTES:
        return [
            f"{len(giving)} classes keep {kept[giving].sum()} of {drawn[giving].sum()} images: "
            f"{given[giving].sum()} went to validation"
        ]
    return [
        f"{class_names[c]} keeps {kept[c]} of {drawn[c]} images: {given[c]} went to validation"
        for c in giving
    ]


def spared_notes(plan: Plan) -> list[str]:
    """Say how many images of held-out groups are in no split."""
    if not plan.num_spared:
        return []
    return [
        f"{_counted(plan.num_spared, 'image')} of held-out groups are in no split: validation is "
        "cut as training is"
    ]


def class_notes(classes: Classes, class_names: tuple[str, ...]) -> list[str]:
    """Say which classes are trained on, known to the teacher and tested, unless it is all."""
    parts = {
        "trained on": classes.trained,
        "the teacher knows": classes.taught,
        "tested on": classes.tested,
    }
    if all(len(labels) in (0, len(class_names)) for labels in parts.values()):
        return []
    return [
        f"{what} {len(labels)} of {len(class_names)} classes: "
        + ", ".join(class_names[label] for label in labels[:_MOST_NAMED])
        + (" ..." if len(labels) > _MOST_NAMED else "")
        for what, labels in parts.items()
        if labels
    ]


def title_of(pool: Pool, classes: Classes) -> str:
    """Return the title for tables, which says when a run leaves classes out."""
    num_classes = len(pool.class_names)
    if len(classes.trained) == len(classes.tested) == num_classes:
        return pool.title
    tested = "the same" if classes.tested == classes.trained else str(len(classes.tested))
    return (
        f"{pool.title} (trained on {len(classes.trained)} of {num_classes} classes, tested on "
        f"{tested})"
    )


def validation_notes(
    pool: Pool,
    validation: Validation,
    val_counts: Tensor | None,
    *,
    class_names: Sequence[str],
) -> list[str]:
    """Say how many labels validation uses, whether it is balanced, and which classes it lacks.

    Args:
        pool: The data set.
        validation: What is asked for.
        val_counts: Validation images of each class in training; None without a split.
        class_names: Names of these classes.
    """
    if val_counts is None:
        return ["no validation split: it uses 0 labels"]
    uses = f"validation uses {int(val_counts.sum())} labels"
    if validation.per_class is not None and is_balanced(val_counts):
        return [f"{uses} ({int(val_counts[0])} of each class)"]
    origin = f"{pool.title}'s own list"
    if validation.per_class is not None:
        origin = f"at most {validation.per_class} of each class"
    elif validation.fraction is not None:
        origin = f"fraction {validation.fraction:g} of each class"
    balance = "balanced" if is_balanced(val_counts) else "not balanced"
    notes = [uses, f"validation is {balance} ({origin})"]
    lacking = [name for name, n in zip(class_names, val_counts.tolist(), strict=True) if n == 0]
    return [*notes, *_lacking_note(lacking, len(class_names), what="validation")]


def test_notes(pool: Pool, classes: Classes, test: Tensor) -> list[str]:
    """Name the tested classes that have no image among the ``test`` targets (N,)."""
    counts = torch.bincount(test, minlength=len(pool.class_names))
    lacking = [pool.class_names[label] for label in classes.tested if counts[label] == 0]
    return _lacking_note(lacking, len(classes.tested), what="test")


def prior_note(test: np.ndarray, prior: str) -> str:
    """Say at which class shares the metrics of a test split are, by its labels (N,).

    Args:
        test: Labels.
        prior: ``data.test_prior``.
    """
    counts = np.unique(test, return_counts=True)[1]
    if prior == "balanced":
        return f"test is balanced: {counts[0]} images of each class (data.test_prior)"
    return (
        f"{OWN_SHARES}, {counts.max():,} images of a class to {counts.min():,}: accuracy is at "
        "these, balanced accuracy at equal ones"
    )


def _lacking_note(names: Sequence[str], num_classes: int, *, what: str) -> list[str]:
    if not names:
        return []
    have = "has" if len(names) == 1 else "have"
    listed = ", ".join(names[:_MOST_NAMED]) + (" ..." if len(names) > _MOST_NAMED else "")
    return [f"{len(names)} of {num_classes} classes {have} no {what} image: {listed}"]


def group_notes(splits: Mapping[str, Split | Labelled | None], *, kind: str) -> list[str]:
    """Say how many groups each split has, and how many are in two of them."""
    groups = {
        name: np.unique(split.groups)
        for name, split in splits.items()
        if split is not None and split.groups is not None
    }
    if len(groups) < 2:
        return []
    shared = [
        f"{_counted(len(both), 'group')} in {first} and {second}"
        for (first, a), (second, b) in itertools.combinations(groups.items(), 2)
        if len(both := np.intersect1d(a, b, assume_unique=True))
    ]
    if shared:
        return [f"{SHARED_GROUPS}, by {kind}: {', '.join(shared)}"]
    counts = ", ".join(f"{_counted(len(own), 'group')} in {name}" for name, own in groups.items())
    return [f"split by {kind}, none is in two splits: {counts}"]


def is_balanced(counts: Tensor) -> bool:
    """Return whether all counts are equal."""
    return bool((counts == counts[0]).all())


def _counted(num: int, noun: str) -> str:
    """Return a number with its noun, one in the singular."""
    return f"{num:,} {noun}" if num == 1 else f"{num:,} {noun}s"
