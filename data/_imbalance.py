"""Imbalance: how many training images each class keeps, and which ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from data._base import DataError
from data._classes import Names, by_label
from data._permutation import fixed_permutation
from data._profiles import profile_shares

_MOST_NAMED = 20  # classes listed in one message
_CLASS_ORDER = 0x7A11  # keeps the draw of the tail apart from the draws of images


@dataclass(frozen=True)
class Imbalance:
    """The long tail that is cut out of a data set.

    Args:
        kind: Shape of the training class counts: exponential, step (half of the classes are small),
            pareto (a power law of the rank), head_tail (a few classes hold most images), natural
            (the curve of a data set that is long-tailed by itself), counts given class by class,
            or none (the data set as it is).
        factor: Imbalance factor: images of the largest class over those of the smallest.
        rule: How images are drawn: uniform is nested across factors; cao is the very subset of
            the public LDAM-DRW code (legacy NumPy seeding, classes in label order).
        seed: Seed of the training subset, apart from the seed of the run.
        counts: Training images of each class, for kind=counts: a list in label order, or by class
            name, as in {cat: 500, dog: 20}.
        head: Images of the largest class; null takes as many as every class has.
        order: Which class is the tail: label keeps the last labels rare, shuffled permutes the
            classes by the seed.
        head_classes: Share of the classes that are the head; at least one class is, and one is not.
        head_share: Share of the training images that the head holds, at least that of its classes;
            all its classes have as many images, and so have all others.
        profile: Whose curve natural takes: infrared_solar (12 classes, factor 57), places_lt (365,
            factor 996) or inaturalist18_groups (14 super categories, factor 8,997); cut into as
            many pieces as there are classes and scaled to head, at least 1 image.
    """

    # Which kinds read a key; with any other it has no effect.
    read_by: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "factor": ("exponential", "step", "pareto"),
        "head": ("exponential", "step", "pareto", "head_tail", "natural"),
        "order": ("exponential", "step", "pareto", "head_tail", "natural"),
        "rule": ("exponential", "step", "pareto", "head_tail", "natural", "counts"),
        "counts": ("counts",),
        "head_classes": ("head_tail",),
        "head_share": ("head_tail",),
        "profile": ("natural",),
    }

    kind: Literal["exponential", "step", "pareto", "head_tail", "natural", "counts", "none"] = (
        "exponential"
    )
    factor: Annotated[float, Ge(1)] = 50.0
    rule: Literal["uniform", "cao"] = "uniform"
    seed: Annotated[int, Ge(0), Lt(2**32)] = 0
    counts: tuple[Annotated[int, Ge(1)], ...] | dict[str, Annotated[int, Ge(1)]] | None = None
    head: Annotated[int, Ge(1)] | None = None
    order: Literal["label", "shuffled"] = "label"
    head_classes: Annotated[float, Gt(0), Lt(1)] = 0.2
    head_share: Annotated[float, Gt(0), Lt(1)] = 0.8
    profile: Literal["infrared_solar", "places_lt", "inaturalist18_groups"] = "infrared_solar"


def class_sizes(
    imbalance: Imbalance, *, available: np.ndarray, class_names: tuple[str, ...], head: int
) -> np.ndarray:
    """Return how many training images each class keeps, int64 (C,).

    Exponential: int(n_max (1 / factor)^(i / (C - 1))) for i = 0..C-1; step: n_max for the first
    C // 2 classes, int(n_max / factor) for the rest (Cui et al. 2019; Cao et al. 2019,
    imbalance_cifar.py; both truncate). Pareto: int(n_max (i + 1)^-a) with a such that the last
    class has n_max / factor. Head and tail: n_max for each of the k head classes, and as many for
    each other that the head holds its share, rounded down. Natural: see :mod:`data._profiles`.

    Args:
        imbalance: What is asked for.
        available: (C,) images there are of each class.
        class_names: Names for messages.
        head: n_max, images of the largest class.

    Raises:
        DataError: If a class would keep none, or more than there are.
    """
    num_classes = len(available)
    match imbalance.kind:
        case "none":
            return available.copy()
        case "counts":
            sizes = _given_counts(imbalance, class_names=class_names)
        case "exponential":
            share = 1 / imbalance.factor
            ranks = range(num_classes)
            sizes = np.array([int(head * share ** (i / (num_classes - 1))) for i in ranks])
        case "step":
            small = int(head / imbalance.factor)
            sizes = np.array([head] * (num_classes // 2) + [small] * -(-num_classes // 2))
        case "pareto":
            share, last = 1 / imbalance.factor, math.log(num_classes)
            ranks = range(1, num_classes + 1)
            sizes = np.array([int(head * share ** (math.log(i) / last)) for i in ranks])
        case "head_tail":
            sizes = _head_and_tail(imbalance, num_classes, head=head)
        case "natural":
            shares = profile_shares(imbalance.profile, num_classes)
            sizes = np.maximum(1, (head * shares).astype(np.int64))
    if imbalance.order == "shuffled":
        sizes = sizes[fixed_permutation(num_classes, key=(_CLASS_ORDER, imbalance.seed))]
    _check_sizes(sizes, imbalance, available=available, class_names=class_names, head=head)
    return sizes


def class_orders(imbalance: Imbalance, positions: list[np.ndarray]) -> list[np.ndarray]:
    """Order the images of each class; the first n_i are its training images.

    ``cao`` shuffles class after class with one legacy generator, as imbalance_cifar.py of
    kaidic/LDAM-DRW does after np.random.seed. ``uniform`` has a generator for each (seed, class).
    In both a smaller subset of a class is the beginning of a larger one.

    Args:
        imbalance: Its ``rule`` and ``seed`` are read.
        positions: Ascending positions of each class.
    """
    if imbalance.rule == "cao":
        legacy = np.random.RandomState(imbalance.seed)
        orders = [own.copy() for own in positions]
        for own in orders:
            legacy.shuffle(own)
        return orders
    return [
        own[fixed_permutation(len(own), key=(imbalance.seed, label))]
        for label, own in enumerate(positions)
    ]


def class_label(label: int, class_names: tuple[str, ...]) -> str:
    """Return how messages call a class: its label and its name.

    >>> class_label(3, ("airplane", "automobile", "bird", "cat"))
    '3_cat'
    """
    return f"{label}_{class_names[label]}"


def label_order(class_names: tuple[str, ...], values: Sequence[float] | None = None) -> str:
    """Return the classes in label order, for messages about a list of one number a class.

    Args:
        class_names: C names.
        values: C numbers, to be named with their classes.

    >>> label_order(("cat", "dog")), label_order(("cat", "dog"), (1, 2.5))
    ('label order: 0_cat, 1_dog', 'label order: 0_cat 1, 1_dog 2.5')
    """
    named = [class_label(label, class_names) for label in range(len(class_names))]
    if values is not None:
        named = [f"{name} {value:g}" for name, value in zip(named, values, strict=True)]
    return f"label order: {', '.join(named[:_MOST_NAMED])}" + (
        ", ..." if len(named) > _MOST_NAMED else ""
    )


def _head_and_tail(imbalance: Imbalance, num_classes: int, *, head: int) -> np.ndarray:
    """Return the sizes (C,) of head_tail; refuse a share that makes the tail the larger classes."""
    num_head = min(max(1, round(imbalance.head_classes * num_classes)), num_classes - 1)
    others = num_head * head * (1 / imbalance.head_share - 1) / (num_classes - num_head)
    if others > head * (1 + 1e-9):
        raise DataError(
            f"data.imbalance.head_share={imbalance.head_share:g} is less than {num_head} of "
            f"{num_classes} classes have where all are equal ({num_head / num_classes:.3g}): set "
            "it higher, or head_classes lower"
        )
    return np.array([head] * num_head + [int(others + 1e-9)] * (num_classes - num_head))


def _given_counts(imbalance: Imbalance, *, class_names: tuple[str, ...]) -> np.ndarray:
    counts: Sequence[float] = ()
    if isinstance(imbalance.counts, dict):
        names, everyone = Names("the data set", class_names), range(len(class_names))
        counts = by_label(imbalance.counts, names, needed=everyone, key="data.imbalance.counts")
    elif imbalance.counts is not None:
        counts = imbalance.counts
    if len(counts) != len(class_names):
        raise DataError(
            f"data.imbalance.counts has {len(counts)} numbers, but there are {len(class_names)} "
            f"classes: give one number of images for each ({label_order(class_names)})"
        )
    for label, count in enumerate(counts):
        if count < 1:
            raise DataError(
                f"data.imbalance.counts gives class {class_label(label, class_names)} {count} "
                "images: every class needs at least 1"
            )
    return np.array(counts, dtype=np.int64)


def _largest_factor(kind: str, head: int) -> int:
    """Return the largest whole factor that leaves one image, in the formula's own arithmetic."""
    if kind in ("exponential", "pareto") and int(head * (1 / head)) < 1:
        return head - 1  # 49 * (1 / 49) is 0.999...
    return head


def _check_sizes(
    sizes: np.ndarray,
    imbalance: Imbalance,
    *,
    available: np.ndarray,
    class_names: tuple[str, ...],
    head: int,
) -> None:
    """Refuse an empty class and more images than there are, naming the first such class."""
    for label in np.flatnonzero(available < 1)[:1]:
        raise DataError(
            f"class {class_label(int(label), class_names)} has no training image: "
            f"data.imbalance.kind={imbalance.kind} needs at least 1 of every class"
        )
    for label in np.flatnonzero(sizes < 1)[:1]:
        if imbalance.kind == "head_tail":
            raise DataError(
                f"data.imbalance.head_share={imbalance.head_share:g} leaves class "
                f"{class_label(int(label), class_names)} no image: with head classes of {head} set "
                "it lower, or head_classes higher"
            )
        raise DataError(
            f"data.imbalance.factor={imbalance.factor:g} leaves class "
            f"{class_label(int(label), class_names)} no image: with a head class of {head} the "
            f"largest factor allowed is {_largest_factor(imbalance.kind, head)}"
        )
    for label in np.flatnonzero(sizes > available)[:1]:
        raise DataError(
            f"data.imbalance asks for {sizes[label]} training images of class "
            f"{class_label(int(label), class_names)}, but there are {available[label]}: "
            "ask for fewer (data.imbalance.head, factor or counts)"
        )
