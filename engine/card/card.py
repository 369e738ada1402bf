"""All facts of a data set that a card shows, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import data
from engine.card.files import FileFacts, look_at
from engine.card.repeats import Repeats, find_repeats
from engine.card.resolution import (
    HalfWidth,
    class_half_widths,
    mean_half_width,
    overall_half_width,
)
from engine.card.seed_noise import SeedNoise, seed_noise
from engine.card.shape import Shape, shape_of
from engine.config.mistakes import ConfigError, mistakes_of
from engine.config.schema import Config
from engine.training.build import data_source, group_limits
from engine.training.metrics import few_shot_groups
from engine.training.run_folder import RunFolder
from engine.training.setup import load_dataset

_MOST_NAMED = 20  # broken files


@dataclass(frozen=True)
class ClassFacts:
    """One class: its images in each split, and how well its recall can be known."""

    name: str
    counts: dict[str, int]
    group: str | None
    half_width: HalfWidth | None


@dataclass(frozen=True)
class Card:
    """What a data set is, and what its test split can show.

    Attributes:
        title: of the data set.
        image_shape: channels, height and width.
        totals: images by split.
        classes: in label order.
        shape: of the training counts, classes without training images left out.
        group_sizes: classes with many, medium and few training images.
        files: None where the images are no files of their own.
        repeats: images that are there more than once.
        num_groups: groups of images that belong together by split; empty where none are known.
        means: half-widths of the means over classes, by name, and of the accuracy.
        noise: of seeds, from earlier runs.
        notes: what the data set says of its splits, and what the groups mean where that is unusual.
    """

    title: str
    image_shape: tuple[int, int, int]
    totals: dict[str, int]
    classes: tuple[ClassFacts, ...]
    shape: Shape
    group_sizes: dict[str, int]
    files: FileFacts | None
    repeats: Repeats
    num_groups: dict[str, int]
    means: dict[str, HalfWidth | None]
    noise: SeedNoise | None
    notes: tuple[str, ...]


def card_of(config: Config, *, most_bits: int | None = None) -> Card:
    """Load the data of a config and describe them.

    Args:
        config: whose ``data`` section is read, and ``track`` for earlier runs.
        most_bits: as for :func:`engine.card.repeats.find_repeats`.

    Raises:
        ConfigError: data are missing or do not allow what the config asks, or files are broken.
    """
    with mistakes_of(data.DataError):
        files = _files(config)
        dataset = load_dataset(config)
        splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
        there = {name: split for name, split in splits.items() if split is not None}
        repeats = find_repeats(there, most_bits=most_bits)
    num_classes, test = dataset.num_classes, dataset.test
    counts = {
        name: np.bincount(split.targets.numpy(), minlength=num_classes)
        for name, split in there.items()
    }
    widths = class_half_widths(test.targets.numpy(), test.groups, num_classes=num_classes)
    limits = group_limits(config)
    masks = few_shot_groups(dataset.class_counts, limits)
    means = {"balanced accuracy": mean_half_width(widths)}
    for group, mask in masks.items():
        own = [width for width, is_in in zip(widths, mask, strict=True) if is_in]
        means[f"{group} accuracy"] = mean_half_width(own)
    means["accuracy"] = overall_half_width(test.groups, num=len(test))
    runs = RunFolder.of(config).path.parent
    return Card(
        title=dataset.title,
        image_shape=dataset.image_shape,
        totals={name: len(split) for name, split in there.items()},
        classes=tuple(
            ClassFacts(
                name=name,
                counts={split: int(own[label]) for split, own in counts.items()},
                group=next((g for g, mask in masks.items() if mask[label]), None),
                half_width=widths[label],
            )
            for label, name in enumerate(dataset.class_names)
        ),
        shape=shape_of(dataset.class_counts[dataset.class_counts > 0]),
        group_sizes={group: int(mask.sum()) for group, mask in masks.items()},
        files=files,
        repeats=repeats,
        num_groups={
            name: len(np.unique(split.groups))
            for name, split in there.items()
            if split.groups is not None
        },
        means=means,
        noise=seed_noise(runs, title=dataset.title),
        notes=(*dataset.notes, *limits.notes),
    )


def _files(config: Config) -> FileFacts | None:
    """Look at the files of a data set that has one an image, or a few.

    Raises:
        ConfigError: with a line for each file that cannot be read.
    """
    source = data_source(config)
    if not hasattr(source, "files"):
        return None
    facts = look_at(source.files())
    if facts.broken:
        more = len(facts.broken) - _MOST_NAMED
        named = list(facts.broken[:_MOST_NAMED])
        raise ConfigError(named + ([f"... and {more} more files"] if more > 0 else []))
    return facts
