"""Which images of a training list are trained on, and which are held out for validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data._base import DataError, HoldOutError, Labelled, Pool
from data._class_index import ClassIndex
from data._groups import merge_groups, split_groups
from data._held_out import hold_out
from data._imbalance import Imbalance, class_label, class_orders, class_sizes
from data._notes import Plan, Validation


def plan_splits(
    pool: Pool, imbalance: Imbalance, validation: Validation, *, is_binary: bool
) -> Plan:
    """Decide the positions of the training and validation images in the training list.

    Raises:
        HoldOutError: If no validation image, or no training image of a class, would be left.
        DataError: If a number of each class is asked for of whole groups.
    """
    names = pool.class_names
    classes = ClassIndex.from_targets(pool.train.targets, num_classes=len(names))
    available = classes.counts
    default_head = int(available[0] if is_binary else available.min())
    head = default_head if imbalance.head is None else imbalance.head
    drawn = class_sizes(imbalance, available=available, class_names=names, head=head)
    orders = class_orders(imbalance, [classes.positions(label) for label in range(len(names))])
    joined = pool.train.contents if pool.joins_copies else None
    if validation and validation.group and pool.train.groups is not None:
        is_held = _whole_groups(
            pool.train, pool.train.groups, validation, seed=imbalance.seed, contents=joined
        )
        is_val = _cut_as_training(
            is_held, orders, validation=validation, drawn=drawn, available=available
        )
    else:
        sizes = _validation_sizes(validation, drawn=drawn, available=available, class_names=names)
        # Where there are groups, data.validation.group=false asks for a draw image by image.
        contents = joined if pool.train.groups is None else None
        is_held = is_val = hold_out(orders, sizes, contents=contents)
        if sizes.any() and not is_val.any():
            raise HoldOutError(
                "data.validation leaves the validation split empty: images are held out with all "
                "their copies, and no class can spare some; set data.validation.per_class and "
                "data.validation.fraction to null"
            )
    held_out = np.bincount(pool.train.targets.numpy()[is_held], minlength=len(names))
    kept = np.minimum(drawn, available - held_out)
    train = [order[~is_held[order]][:keep] for order, keep in zip(orders, kept, strict=True)]
    asked = kept if imbalance.kind == "none" else drawn
    return Plan(
        np.sort(np.concatenate(train)),
        np.flatnonzero(is_val),
        drawn=asked,
        kept=kept,
        num_spared=int(is_held.sum() - is_val.sum()),
        is_drawn=bool((kept < available).any()),
    )


def _whole_groups(
    part: Labelled,
    groups: np.ndarray,
    validation: Validation,
    *,
    seed: int,
    contents: np.ndarray | None,
) -> np.ndarray:
    """Return which images (N,) are held out: those of whole groups, about a fraction of each class.

    Groups that share an image are one, unless no validation is to be had of such.

    Raises:
        HoldOutError: If nothing can be held out.
        DataError: If a number of each class is asked for.
    """
    if validation.per_class is not None:
        raise DataError(
            f"data.validation.per_class={validation.per_class}: cannot be met by whole groups of "
            "images; set it to null and data.validation.fraction instead, or, where images of one "
            "group may be in two splits, data.validation.group=false"
        )
    assert validation.fraction is not None
    shares = (1 - validation.fraction, validation.fraction)
    merged = [] if contents is None else [merge_groups(groups, contents)]
    for whole in (*merged, groups):
        is_val = split_groups(part.targets.numpy(), whole, shares=shares, seed=seed) == 1
        if is_val.any():
            return is_val
    raise HoldOutError(
        f"data.validation.fraction={validation.fraction:g} leaves the validation split empty: "
        "no group can be spared; set it higher or to null"
    )


def _cut_as_training(
    is_held: np.ndarray,
    orders: Sequence[np.ndarray],
    *,
    validation: Validation,
    drawn: np.ndarray,
    available: np.ndarray,
) -> np.ndarray:
    """Return which images (N,) of held-out groups are validation: the share of those drawn.

    A class of which training takes all images keeps what whole groups give it.

    Raises:
        HoldOutError: If none is.
    """
    assert validation.fraction is not None
    is_val = is_held.copy()
    sizes = np.floor(validation.fraction * drawn + 0.5).astype(np.int64)
    for label in np.flatnonzero(drawn < available).tolist():
        own = orders[label][is_held[orders[label]]]
        is_val[own[: max(0, len(own) - sizes[label])]] = False
    if not is_val.any():
        raise HoldOutError(
            f"data.validation.fraction={validation.fraction:g} leaves the validation split empty: "
            "set it higher or to null"
        )
    return is_val


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
            raise HoldOutError(
                f"data.validation.per_class={validation.per_class} leaves class "
                f"{class_label(int(label), class_names)} no training image: it has "
                f"{available[label]} beside the test split; set it lower or to null"
            )
        return np.full_like(available, validation.per_class)
    if validation.fraction is None:
        return np.zeros_like(available)
    rounded = np.floor(validation.fraction * drawn + 0.5).astype(np.int64)
    sizes = np.minimum(rounded, available - 1)
    if (available == 1).all():
        raise HoldOutError(
            f"data.validation.fraction={validation.fraction:g} leaves no training image: every "
            "class has one image beside the test split; set it to null"
        )
    if sizes.sum() == 0:
        raise HoldOutError(
            f"data.validation.fraction={validation.fraction:g} leaves the validation split empty: "
            "set it higher or to null"
        )
    return sizes
