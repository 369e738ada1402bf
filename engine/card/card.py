"""All facts of a data set that a card shows, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import data
from engine.card.files import FileFacts, look_at
from engine.card.seed_noise import SeedNoise, seed_noise
from engine.config.mistakes import ConfigError, mistakes_of
from engine.config.schema import Config
from engine.report.data_facts import DataFacts, data_facts
from engine.training.build import data_source, group_limits
from engine.training.metrics import few_shot_groups
from engine.training.repeats import find_repeats
from engine.training.run_folder import RunFolder
from engine.training.setup import load_dataset

_MOST_NAMED = 20  # broken files


@dataclass(frozen=True)
class Card(DataFacts):
    """The facts of a data set that a config names.

    Attributes:
        title: of the data set.
        image_shape: channels, height and width.
        files: None where the images are no files of their own.
        noise: of seeds, from earlier runs.
        notes: what the data set says of its splits, and what the groups mean where that is unusual.
    """

    title: str
    image_shape: tuple[int, int, int]
    files: FileFacts | None
    noise: SeedNoise | None
    notes: tuple[str, ...]


def card_of(config: Config, *, most_bits: int | None = None) -> Card:
    """Load the data of a config and describe them.

    Args:
        config: whose ``data`` section is read, and ``track`` for earlier runs.
        most_bits: as for :func:`engine.training.repeats.find_repeats`.

    Raises:
        ConfigError: data are missing or do not allow what the config asks, or files are broken.
    """
    with mistakes_of(data.DataError):
        files = _files(config)
        dataset = load_dataset(config)
        repeats = find_repeats(dataset.splits, most_bits=most_bits)
    limits = group_limits(config)
    facts = data_facts(
        {
            name: np.bincount(split.targets.numpy(), minlength=dataset.num_classes)
            for name, split in dataset.splits.items()
        },
        names=dataset.class_names,
        masks=few_shot_groups(dataset.class_counts, limits),
        test_targets=dataset.test.targets.numpy(),
        groups={name: split.groups for name, split in dataset.splits.items()},
        repeats=repeats,
    )
    return Card(
        **vars(facts),
        title=dataset.title,
        image_shape=dataset.image_shape,
        files=files,
        noise=seed_noise(RunFolder.of(config).path.parent, title=dataset.title),
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
