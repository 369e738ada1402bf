"""Splits: the training subset first, validation from what is left, the test split as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from data._base import (
    DataError,
    DiskImages,
    Labelled,
    LongTailed,
    Pool,
    Source,
    Split,
    select_images,
)
from data._imbalance import Imbalance, class_label, class_orders, class_sizes
from data._one_vs_rest import binary_pool
from data._samplers import ClassIndex
from data._statistics import ChannelStatistics, channel_statistics, split_fingerprint

_MOST_NOTES = 5  # classes named one by one before a note sums them up


@dataclass(frozen=True)
class Validation:
    """The validation split; without either key there is none.

    Args:
        per_class: Validation images of every class, taken from the images left over.
        fraction: Validation images of each class as a fraction of its training images.
    """

    per_class: Annotated[int, Ge(1)] | None = 20
    fraction: Annotated[float, Gt(0), Lt(1)] | None = None

    def __bool__(self) -> bool:
        return self.per_class is not None or self.fraction is not None


class _Plan(NamedTuple):
    """Which images of the training list go where, and what the user is told about it."""

    train: np.ndarray
    val: np.ndarray
    notes: list[str]


def build(
    source: Source,
    *,
    imbalance: Imbalance,
    validation: Validation,
    one_vs_rest: str | None = None,
) -> LongTailed:
    """Load a data set and draw its three disjoint splits.

    The training subset is drawn first, exactly as without validation; validation comes from the
    end of the same order of each class, so it is the same for every imbalance factor as long as
    enough is left over. Only a class with too few left over gives up training images of its own,
    and a note says so. A data set's own validation list is used whole, and nothing is held out.
    Nothing depends on the seed of the run.

    Args:
        source: The data-set component.
        imbalance: The long tail to cut; its ``head`` defaults to the number of images that every
            class has, or with ``one_vs_rest`` to the number of the rest.
        validation: The validation split to make.
        one_vs_rest: Name or label of the class that becomes class 1 of a binary task, before the
            imbalance is cut; all others are class 0, "rest".

    Raises:
        DataError: If the data set does not allow what is asked for.
    """
    pool = source.load()
    if one_vs_rest is not None:
        pool = binary_pool(pool, one_vs_rest)
    if len(pool.class_names) < 2:
        raise DataError(f"{pool.title} has one class only: classification needs at least 2")
    if pool.val is not None:
        validation = Validation(per_class=None, fraction=None)
    plan = _plan(pool, imbalance, validation, is_binary=one_vs_rest is not None)
    train, test = _take(pool.train, plan.train), _whole(pool.test)
    val = _take(pool.train, plan.val) if validation else None
    if pool.val is not None:
        val = _whole(pool.val)
    num_classes = len(pool.class_names)
    val_counts = None if val is None else torch.bincount(val.targets, minlength=num_classes)
    statistics = _statistics(pool, train)
    return LongTailed(
        train=train,
        val=val,
        test=test,
        class_counts=np.bincount(train.targets.numpy(), minlength=num_classes),
        class_names=pool.class_names,
        mean=statistics.mean,
        std=statistics.std,
        split_fingerprint=split_fingerprint({"train": train, "val": val, "test": test}),
        val_is_balanced=val_counts is not None and _is_balanced(val_counts),
        val_is_own=pool.val is not None,
        title=pool.title,
        notes=(*plan.notes, *_validation_notes(pool, validation, val_counts)),
    )


def _plan(pool: Pool, imbalance: Imbalance, validation: Validation, *, is_binary: bool) -> _Plan:
    """Decide the positions of the training and validation images in the training list."""
    names = pool.class_names
    classes = ClassIndex.from_targets(pool.train.targets, num_classes=len(names))
    available = classes.counts
    default_head = int(available[0] if is_binary else available.min())
    head = default_head if imbalance.head is None else imbalance.head
    drawn = class_sizes(imbalance, available=available, class_names=names, head=head)
    held_out = _validation_sizes(validation, drawn=drawn, available=available, class_names=names)
    kept = np.minimum(drawn, available - held_out)
    orders = class_orders(imbalance, [classes.positions(label) for label in range(len(names))])
    train = [order[:keep] for order, keep in zip(orders, kept, strict=True)]
    val = [order[len(order) - out :] for order, out in zip(orders, held_out, strict=True)]
    notes = _sacrifice_notes(drawn, kept, class_names=names) if imbalance.kind != "none" else []
    return _Plan(np.sort(np.concatenate(train)), np.sort(np.concatenate(val)), notes)


def _validation_sizes(
    validation: Validation,
    *,
    drawn: np.ndarray,
    available: np.ndarray,
    class_names: tuple[str, ...],
) -> np.ndarray:
    """Return how many validation images each class has, leaving it one to train on."""
    if validation.per_class is not None:
        for label in np.flatnonzero(available <= validation.per_class)[:1]:
            raise DataError(
                f"data.validation.per_class={validation.per_class} leaves class "
                f"{class_label(int(label), class_names)} no training image: it has "
                f"{available[label]} beside the test split; set it lower or to null"
            )
        return np.full_like(available, validation.per_class)
    if validation.fraction is None:
        return np.zeros_like(available)
    rounded = np.floor(validation.fraction * drawn + 0.5).astype(np.int64)
    sizes = np.minimum(rounded, available - 1)
    if sizes.sum() == 0:
        raise DataError(
            f"data.validation.fraction={validation.fraction:g} leaves the validation split empty: "
            "set it higher or to null"
        )
    return sizes


def _sacrifice_notes(
    drawn: np.ndarray, kept: np.ndarray, *, class_names: tuple[str, ...]
) -> list[str]:
    """Name the classes that gave up training images to validation."""
    given = drawn - kept
    giving = np.flatnonzero(given)
    if len(giving) > _MOST_NOTES:
        return [
            f"{len(giving)} classes keep {kept[giving].sum()} of {drawn[giving].sum()} images: "
            f"{given.sum()} went to validation"
        ]
    return [
        f"{class_label(int(c), class_names)} keeps {kept[c]} of {drawn[c]} images: "
        f"{given[c]} went to validation"
        for c in giving
    ]


def _validation_notes(pool: Pool, validation: Validation, val_counts: Tensor | None) -> list[str]:
    """Say how many labels validation uses, whether it is balanced, and which it lacks."""
    if val_counts is None:
        return ["no validation split: it uses 0 labels"]
    uses = f"validation uses {int(val_counts.sum())} labels"
    if validation.per_class is not None:
        return [f"{uses} ({validation.per_class} of each class)"]
    origin = f"{pool.title}'s own list"
    if validation.fraction is not None:
        origin = f"fraction {validation.fraction:g} of each class"
    balance = "balanced" if _is_balanced(val_counts) else "not balanced"
    notes = [uses, f"validation is {balance} ({origin})"]
    lacking = int((val_counts == 0).sum())
    if lacking:
        notes.append(f"{lacking} of {len(val_counts)} classes have no validation image")
    return notes


def _is_balanced(counts: Tensor) -> bool:
    return bool((counts == counts[0]).all())


def _take(part: Labelled, positions: np.ndarray) -> Split:
    index = torch.from_numpy(positions)
    return Split(select_images(part.images, index), part.targets[index], index)


def _whole(part: Labelled) -> Split:
    index: Tensor = torch.arange(len(part))
    return Split(part.images, part.targets, index)


def _statistics(pool: Pool, train: Split) -> ChannelStatistics:
    """Return the data set's own statistics, else those of the drawn training images."""
    if pool.mean is not None and pool.std is not None:
        return ChannelStatistics(pool.mean, pool.std)
    assert not isinstance(train.images, DiskImages), "images on disk come with their statistics"
    return channel_statistics(train.images)
