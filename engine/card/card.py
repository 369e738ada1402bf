"""All facts of a data set that a card shows, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import data
from engine.card.files import FileFacts, look_at
from engine.card.seed_noise import SeedNoise, seed_noise
from engine.config.mistakes import ConfigError, mistakes_of
from engine.config.schema import Config, component_keys
from engine.report.data_facts import DataFacts, data_facts
from engine.training.build import build_dataset, data_source, group_limits
from engine.training.metrics import few_shot_groups
from engine.training.repeats import find_repeats
from engine.training.run_folder import RunFolder
from engine.training.setup import load_dataset, taught_names

_MOST_NAMED = 20  # broken files
_DECODING = {"grey_bits"}  # keys that decide which files can be decoded


@dataclass(frozen=True)
class Card(DataFacts):
    """The facts of a data set that a config names.

    Attributes:
        title: of the data set.
        image_shape: channels, height and width.
        files: None where the images are no files of their own.
        faults: why a run refuses these data, a sentence each; the facts are those of what can be
            read.
        noise: of seeds, from earlier runs.
        notes: what the data set says of its splits, and what the groups mean where that is unusual.
    """

    title: str
    image_shape: tuple[int, int, int]
    files: FileFacts | None
    faults: tuple[str, ...]
    noise: SeedNoise | None
    notes: tuple[str, ...]


def card_of(config: Config, *, most_bits: int | None = None) -> Card:
    """Load the data of a config and describe them, also where a run would refuse them.

    Args:
        config: whose ``data`` section is read, and ``track`` for earlier runs.
        most_bits: as for :func:`engine.training.repeats.find_repeats`.

    Raises:
        ConfigError: data are missing or do not allow what the config asks but validation, or a file
            cannot be read and the data set knows no way to leave it out.
    """
    with mistakes_of(data.DataError):
        source = data_source(config)
        files = None
        if hasattr(source, "files"):
            keys = component_keys(config.data)
            files = look_at(source.files(), options={k: keys[k] for k in _DECODING & keys.keys()})
        described = _Described(source, {} if files is None else files.broken)
        if described.faults and not hasattr(source, "describe"):
            raise ConfigError(described.faults)
        try:
            dataset = _load(config, described)
        except ConfigError as error:
            raise ConfigError([*described.faults, *error.mistakes]) from error
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
        faults=tuple(described.faults),
        noise=seed_noise(RunFolder.of(config).path.parent, config),
        notes=(*dataset.notes, *limits.notes),
    )


def _load(config: Config, described: _Described) -> data.LongTailed:
    """Load the splits of a config, without validation where the data do not allow it."""
    try:
        return load_dataset(config, source=described)
    except ConfigError as error:
        if not isinstance(error.__cause__, data.HoldOutError):
            raise
        described.faults.append(f"{error} (described without validation)")
    none = config.data.validation.model_copy(update={"per_class": None, "fraction": None})
    section = config.data.model_copy(update={"validation": none})
    # Keys that have no effect without validation are no further mistakes of the user.
    return build_dataset(
        config.model_copy(update={"data": section}), taught=taught_names(config), source=described
    )


class _Described:
    """A reader of data that keeps why a run refuses them, and loads what can be read.

    Args:
        source: the reader that the config names.
        broken: files that cannot be read, and what is wrong with each.
    """

    def __init__(self, source: Any, broken: Mapping[Path, str]) -> None:
        self._source, self._broken = source, broken
        self._pool: data.Pool | None = None
        self.faults = list(broken.values())[:_MOST_NAMED]
        if (more := len(broken) - _MOST_NAMED) > 0:
            self.faults.append(f"... and {more:,} more files")

    def load(self) -> data.Pool:
        """Return what can be read of the data, files on disk compared with each other."""
        if self._pool is None:
            describe = getattr(self._source, "describe", None)
            pool: data.Pool = (
                self._source.load()
                if describe is None
                else describe(without=self._broken, refuse=self.faults.append)
            )
            self._pool = data.compare_files(pool)
        return self._pool
