"""What a data set is and what its test split can show, in numbers and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.config.messages import counted, one_line
from engine.report.resolution import (
    HalfWidth,
    class_half_widths,
    mean_half_width,
    overall_half_width,
)
from engine.report.shape import Shape, shape_of
from engine.report.statistics import DASH

if TYPE_CHECKING:
    from engine.training.repeats import Repeats

SPLITS = {"train": "training", "val": "validation", "test": "test"}
_MOST_NAMED = 4  # classes without images of a split

EXPLANATION = (
    "±, in points of per cent: half of a 95 % interval (Wilson) of one run's recall at 50 %, where "
    "it is widest; a difference of two runs has at most 1.41 times that, and less where both are "
    "right on the same images"
)
GROUPED = (
    "± by group: the same if all images of one group are right or wrong together; the truth lies "
    "between the two"
)


@dataclass(frozen=True)
class ClassFacts:
    """One class: its images in each split, and how well its recall can be known."""

    name: str
    counts: dict[str, int]
    group: str | None
    half_width: HalfWidth | None


@dataclass(frozen=True)
class DataFacts:
    """What a data set is, and what its test split can show.

    Attributes:
        totals: images by split.
        classes: in label order.
        shape: of the training counts, classes without training images left out.
        group_sizes: classes with many, medium and few training images.
        repeats: images that are there more than once; None where nobody looked.
        num_groups: groups of images that belong together by split; empty where none are known.
        means: half-widths of the means over classes, by name, and of the accuracy.
    """

    totals: dict[str, int]
    classes: tuple[ClassFacts, ...]
    shape: Shape
    group_sizes: dict[str, int]
    repeats: Repeats | None
    num_groups: dict[str, int]
    means: dict[str, HalfWidth | None]


def data_facts(
    counts: Mapping[str, npt.NDArray[np.integer]],
    *,
    names: Sequence[str],
    masks: Mapping[str, npt.NDArray[np.bool_]],
    test_targets: npt.NDArray[np.integer],
    groups: Mapping[str, npt.NDArray[np.integer] | None],
    repeats: Repeats | None,
) -> DataFacts:
    """Return the facts of a data set.

    Args:
        counts: (C,) images of each class, by split, ``train`` and ``test`` among them.
        names: C.
        masks: (C,) classes of the groups many, medium and few.
        test_targets: (N,) class of each test image.
        groups: number of each image's group, by split; None where they are not known.
        repeats: images that are there more than once.
    """
    test_groups = groups.get("test")
    widths = class_half_widths(test_targets, test_groups, num_classes=len(names))
    every = np.ones(len(names), dtype=bool)
    means = {
        f"{name} accuracy": mean_half_width(test_targets, test_groups, classes=classes)
        for name, classes in {"balanced": every, **masks}.items()
    }
    means["accuracy"] = overall_half_width(test_groups, num=len(test_targets))
    train = counts["train"]
    return DataFacts(
        totals={split: int(own.sum()) for split, own in counts.items()},
        classes=tuple(
            ClassFacts(
                name=name,
                counts={split: int(own[label]) for split, own in counts.items()},
                group=next((g for g, mask in masks.items() if mask[label]), None),
                half_width=widths[label],
            )
            for label, name in enumerate(names)
        ),
        shape=shape_of(train[train > 0]),
        group_sizes={group: int(mask.sum()) for group, mask in masks.items()},
        repeats=repeats,
        num_groups={
            split: len(np.unique(numbers))
            for split, numbers in groups.items()
            if numbers is not None
        },
        means=means,
    )


def class_sentence(facts: DataFacts) -> str:
    """Say how many classes there are, of which size, and which have no images of a split."""
    sizes = ", ".join(f"{num} {group}" for group, num in facts.group_sizes.items())
    text = f"{len(facts.classes)}: {sizes}"
    for split, words in SPLITS.items():
        lacking = [own.name for own in facts.classes if own.counts.get(split) == 0]
        if lacking:
            more = " ..." if len(lacking) > _MOST_NAMED else ""
            named = one_line(", ".join(lacking[:_MOST_NAMED]))
            text += f"; without {words} images: {named}{more}"
    return text


def sentences(facts: DataFacts) -> Iterator[tuple[str, str]]:
    """Yield what is said of the tail, repeated images, groups and the test split."""
    shape = facts.shape
    fifth = counted(shape.fifth, "class", "classes")
    yield (
        "tail",
        f"factor {shape.factor:.4g}, Gini {shape.gini:.3f}; of the training images the largest "
        f"{fifth} (a fifth) have {shape.head:.1%}, the smallest {shape.tail:.1%}",
    )
    yield "repeats", _repeats(facts.repeats)
    if facts.num_groups:
        yield (
            "groups",
            ", ".join(f"{num:,} {SPLITS[split]}" for split, num in facts.num_groups.items()),
        )
    yield "shows", "; ".join(_means(facts.means))


def headings(facts: DataFacts) -> list[str]:
    """Return the headings of the table of classes."""
    return ["class", "group", *facts.totals, "±", *(["± by group"] if facts.num_groups else [])]


def rows(facts: DataFacts) -> list[list[str]]:
    """Return a row a class by falling training count."""
    by_count = sorted(
        enumerate(facts.classes), key=lambda pair: (-pair[1].counts["train"], pair[0])
    )
    return [
        [
            one_line(own.name),
            own.group or DASH,
            *(f"{own.counts[split]:,}" for split in facts.totals),
            *_widths(own.half_width, has_groups=bool(facts.num_groups)),
        ]
        for _, own in by_count
    ]


def explanations(facts: DataFacts) -> list[str]:
    """Return what the numbers mean."""
    return [EXPLANATION, GROUPED] if facts.num_groups else [EXPLANATION]


def points(width: float) -> str:
    """Return a half-width in points of per cent."""
    return f"{100 * width:.1f}"


def _repeats(found: Repeats | None) -> str:
    if found is None:
        return "not looked for here; python -m engine.card looks"
    parts = [f"{num:,} within {split}" for split, num in found.within.items() if num]
    parts += [f"{num:,} of {b} in {a}, too" for (a, b), num in found.across.items() if num]
    text = "images that are there more than once: " + ", ".join(parts) if parts else "none"
    if found.near is not None:
        near = [f"{num:,} of {b} like one of {a}" for (a, b), num in found.near.items() if num]
        text += f"; looking alike: {', '.join(near) if near else 'none'}"
    return text


def _means(means: Mapping[str, HalfWidth | None]) -> Iterator[str]:
    for name, width in means.items():
        if width is not None:
            by_group = "" if width.groups is None else f" (± {points(width.groups)} by group)"
            yield f"{name} ± {points(width.images)}{by_group}"


def _widths(width: HalfWidth | None, *, has_groups: bool) -> Sequence[str]:
    if width is None:
        return [DASH, DASH] if has_groups else [DASH]
    by_group = [DASH if width.groups is None else points(width.groups)] if has_groups else []
    return [points(width.images), *by_group]
