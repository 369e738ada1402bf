"""Splits: the training subset first, validation from what is left, the test split as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from data._base import (
    Classes,
    DataError,
    DiskImages,
    Labelled,
    LongTailed,
    Pool,
    Source,
    Split,
)
from data._classes import choose_classes, select_classes
from data._copies import across_notes, compare_splits, told_apart, within_notes
from data._imbalance import Imbalance
from data._notes import (
    SHARED_GROUPS,
    Plan,
    Validation,
    class_notes,
    group_notes,
    is_balanced,
    sacrifice_notes,
    spared_notes,
    test_notes,
    title_of,
    validation_notes,
)
from data._one_vs_rest import binary_pool
from data._overlaps import near_notes, without_overlaps
from data._plan import plan_splits
from data._statistics import (
    ChannelStatistics,
    channel_statistics,
    former_fingerprints,
    split_fingerprint,
)

_NOT_LOOKED = (
    "copies of an image under another name are not looked for, as {:,} images stay on disk: "
    "data.drop_duplicates=true looks and leaves them out, python -m engine.card looks"
)


class _Splits(NamedTuple):
    train: Split
    val: Split | None
    test: Split


def build(
    source: Source,
    *,
    imbalance: Imbalance,
    validation: Validation,
    one_vs_rest: str | None = None,
    classes: Sequence[int | str] | None = None,
    test_classes: Sequence[int | str] | None = None,
    taught: Sequence[str] = (),
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    near_duplicates: int | None = None,
    drop_duplicates: bool = False,
) -> LongTailed:
    """Load a data set and draw its three disjoint splits.

    The training subset is drawn first, exactly as without validation; validation comes from the
    end of the same order of each class, so it is the same for every imbalance factor as long as
    enough is left over. Only a class with too few left over gives up training images of its own,
    and a note says so. A data set's own validation list is used whole, and nothing is held out.
    Nothing depends on the seed of the run.

    Where the data set knows which images belong together, whole groups are held out first, and the
    training subset is drawn from the others. Of a class that is cut, validation takes no more of
    them than its share of the images drawn; the others are in no split.

    Classes are left out last: the runs of a sequence that learns some classes after others draw
    the same images and normalise them alike, and labels stay those of the whole data set.

    Args:
        source: The data-set component.
        imbalance: The long tail to cut; its ``head`` defaults to the number of images that every
            class has, or with ``one_vs_rest`` to the number of the rest.
        validation: The validation split to make.
        one_vs_rest: Name or label of the class that becomes class 1 of a binary task, before the
            imbalance is cut; all others are class 0, "rest".
        classes: Names or labels of the classes to train on; None for all.
        test_classes: The same for test; None for those trained on and taught.
        taught: Names of the classes that a teacher knows.
        normalization: Mean and standard deviation of each channel, in [0, 1], in the place of the
            data set's.
        near_duplicates: Bits of 64 in which the hashes of images of two splits may differ that
            count as looking alike; None does not look.
        drop_duplicates: Whether to leave out of training, after all that, images that are in
            validation or test, and out of validation those of test; with ``near_duplicates`` also
            those that look like one.

    Raises:
        DataError: If the data set does not allow what is asked for, or has a group in two splits.
    """
    pool = source.load()
    _check_groups(pool)
    if normalization is not None:
        pool = replace(pool, mean=normalization[0], std=normalization[1])
    if one_vs_rest is not None:
        pool = binary_pool(pool, one_vs_rest)
    if len(pool.class_names) < 2:
        raise DataError(f"{pool.title} has one class only: classification needs at least 2")
    if pool.val is not None:
        validation = Validation(per_class=None, fraction=None)
    chosen = choose_classes(pool, trained=classes, tested=test_classes, taught=taught)
    plan = plan_splits(pool, imbalance, validation, is_binary=one_vs_rest is not None)
    drawn = _draw(pool, plan, has_validation=bool(validation))
    left_out: tuple[str, ...] = ()
    if drop_duplicates:
        drawn, left_out = _without_overlaps(
            drawn, most_bits=near_duplicates, class_names=pool.class_names, classes=chosen
        )
    asked_by = {
        "data.classes": classes is not None,
        "data.test_classes": test_classes is not None,
    }
    splits = _of_classes(
        drawn, chosen, title=pool.title, keys=[key for key, is_set in asked_by.items() if is_set]
    )
    whole = split_fingerprint(drawn._asdict())
    fingerprint = whole if splits == drawn else split_fingerprint(splits._asdict())
    former = former_fingerprints(splits._asdict())
    former_whole = former if splits == drawn else former_fingerprints(drawn._asdict())
    splits = _compared(splits)
    image_notes = (
        *pool.notes,
        *left_out,
        *_copy_notes(splits, most_bits=near_duplicates, is_cleaned=drop_duplicates),
    )
    num_classes = len(pool.class_names)
    trained = torch.tensor(chosen.trained)
    val_counts = None
    if splits.val is not None:
        val_counts = torch.bincount(splits.val.targets, minlength=num_classes)[trained]
    statistics = _statistics(pool, drawn.train)
    is_whole = one_vs_rest is None and (
        len(splits.train) == len(pool.train) and len(splits.test) == len(pool.test)
    )
    notes = (
        *image_notes,
        *sacrifice_notes(plan, pool.class_names, labels=chosen.trained),
        *validation_notes(
            pool, validation, val_counts, class_names=[pool.class_names[c] for c in chosen.trained]
        ),
        *test_notes(pool, chosen, splits.test.targets),
        *spared_notes(plan),
        *group_notes(splits._asdict(), kind=pool.group_kind),
        *class_notes(chosen, pool.class_names),
    )
    return LongTailed(
        train=splits.train,
        val=splits.val,
        test=splits.test,
        class_counts=np.bincount(splits.train.targets.numpy(), minlength=num_classes),
        whole_counts=np.bincount(pool.train.targets.numpy(), minlength=num_classes),
        class_names=pool.class_names,
        mean=statistics.mean,
        std=statistics.std,
        split_fingerprint=fingerprint,
        former_fingerprints=former,
        former_whole_fingerprints=former_whole,
        whole_fingerprint=whole,
        classes=chosen,
        val_is_balanced=val_counts is not None and is_balanced(val_counts),
        val_is_own=pool.val is not None,
        is_drawn=plan.is_drawn,
        title=title_of(pool, chosen),
        notes=notes,
        source_notes=image_notes,
        verified=pool.verified if is_whole else "",
        has_groups=pool.train.groups is not None,
    )


def _check_groups(pool: Pool) -> None:
    """Refuse a group that is in two lists of a pool, unless that is meant."""
    parts = {"train": pool.train, "val": pool.val, "test": pool.test}
    for note in group_notes(parts, kind=pool.group_kind):
        if note.startswith(SHARED_GROUPS) and not pool.may_share_groups:
            raise DataError(
                f"{pool.title}: {note}; draw its splits by group (data._groups.split_groups), or "
                "say that they are meant to share some (Pool(may_share_groups=True))"
            )


def _draw(pool: Pool, plan: Plan, *, has_validation: bool) -> _Splits:
    """Return the splits of all classes."""
    held_out = replace(pool.train, files=None)  # prepared as test is
    val = _take(held_out, plan.val) if has_validation else None
    if pool.val is not None:
        val = _whole(pool.val)
    return _Splits(_take(pool.train, plan.train), val, _whole(pool.test))


def _without_overlaps(
    drawn: _Splits, *, most_bits: int | None, class_names: Sequence[str], classes: Classes
) -> tuple[_Splits, tuple[str, ...]]:
    """Return the splits without images of one that are in another, and what to say of it."""
    left, notes = without_overlaps(
        drawn._asdict(), most_bits=most_bits, class_names=class_names, classes=classes
    )
    train, test = left["train"], left["test"]
    assert train is not None and test is not None
    return _Splits(train, left["val"], test), notes


def _compared(splits: _Splits) -> _Splits:
    """Return the splits with numbers of what their images show, where these can be had."""
    there = {name: split for name, split in splits._asdict().items() if split is not None}
    compared = compare_splits(there)
    return _Splits(compared["train"], compared.get("val"), compared["test"])


def _copy_notes(splits: _Splits, *, most_bits: int | None, is_cleaned: bool) -> tuple[str, ...]:
    """Say of the splits as the run has them which images are there more than once, or look alike.

    Args:
        splits: Of the run.
        most_bits: Bits of 64 that hashes of images that look alike may differ in; None does not
            look for them.
        is_cleaned: Whether no image is left in two splits.
    """
    there = {name: split for name, split in splits._asdict().items() if split is not None}
    told = told_apart(there)
    if told is None:
        on_disk = sum(len(own) for own in there.values() if isinstance(own.images, DiskImages))
        notes: tuple[str, ...] = (_NOT_LOOKED.format(on_disk),)
    else:
        notes = (*across_notes(told), *within_notes(told))
    if most_bits is not None and not is_cleaned:
        notes += near_notes(there, most_bits=most_bits)
    return notes


def _of_classes(drawn: _Splits, classes: Classes, *, title: str, keys: Sequence[str]) -> _Splits:
    """Return the splits without the images of all other classes.

    Args:
        drawn: The splits of all classes.
        classes: Those of the run.
        title: Name of the data set.
        keys: The config keys that choose classes, as far as they are set.

    Raises:
        DataError: If a split would be empty.
    """
    splits = _Splits(
        select_classes(drawn.train, classes.trained),
        None if drawn.val is None else select_classes(drawn.val, classes.trained),
        select_classes(drawn.test, classes.tested),
    )
    for name, split in zip(("training", "validation", "test"), splits, strict=True):
        if split is not None and len(split) == 0:
            own = [key for key in keys if name == "test" or key == "data.classes"]
            mistake = f"{title} has no {name} image"
            raise DataError(f"{own[-1]}: {mistake} of these classes" if own else mistake)
    return splits


def _take(part: Labelled, positions: np.ndarray) -> Split:
    return _whole(part).select(torch.from_numpy(positions))


def _whole(part: Labelled) -> Split:
    return Split(
        part.images,
        part.targets,
        torch.arange(len(part)),
        files=part.files,
        is_trained_as_tested=part.is_trained_as_tested,
        groups=part.groups,
        contents=part.contents,
        names=part.names,
        stored=part.stored,
    )


def _statistics(pool: Pool, train: Split) -> ChannelStatistics:
    """Return the data set's own statistics, else those of the drawn training images."""
    if pool.mean is not None and pool.std is not None:
        return ChannelStatistics(pool.mean, pool.std)
    assert not isinstance(train.images, DiskImages), "images on disk come with their statistics"
    return channel_statistics(train.images)
