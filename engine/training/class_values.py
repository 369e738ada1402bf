"""Keys with a number a class: those by class name become lists in label order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

import data
from engine.config.mistakes import ConfigError, mistakes_of
from engine.config.schema import Config, chosen_keys, component_keys


def weight_keys(config: Config, dataset: data.LongTailed) -> dict[str, Any]:
    """Return the keys of the scheme of class weights; numbers by class name become a list.

    Raises:
        ConfigError: the names are not those of the classes in training.
    """
    keys = chosen_keys(config, "reweight.scheme")
    needed = np.flatnonzero(dataset.class_counts).tolist()
    with mistakes_of(data.DataError):
        for name, value in keys.items():
            if isinstance(value, dict):
                keys[name] = data.by_label(value, dataset, needed=needed, key=f"reweight.{name}")
    return keys


def loss_keys(
    config: Config, class_counts: Tensor, class_names: Sequence[str], *, num_outputs: int
) -> dict[str, Any]:
    """Return the loss's own keys; numbers by class name become a list.

    Args:
        config: of the run.
        class_counts: (C,) training images of each class.
        class_names: C names.
        num_outputs: the model's: 1 where two classes have one output, whose positive is the second
            class; it alone then has a number.

    Raises:
        ConfigError: the names are not those of the classes in training, or every number is 0.
    """
    keys = component_keys(config.loss)
    named = data.Names("the data", tuple(class_names))
    labels = range(len(class_names) - num_outputs, len(class_names))
    needed = [label for label in labels if class_counts[label] > 0]
    for name, value in keys.items():
        if isinstance(value, dict):
            key = f"loss.{name}"
            with mistakes_of(data.DataError):
                keys[name] = data.by_label(value, named, needed=needed, key=key)[labels.start :]
            if num_outputs == 1:
                _only_of_the_positive(value, named, key=key)
        if isinstance(keys[name], tuple) and keys[name] and not any(keys[name]):
            raise ConfigError([f"loss.{name}: every number is 0, and nothing would be learned"])
    return keys


def _only_of_the_positive(values: Mapping[str, float], named: data.Names, *, key: str) -> None:
    for name in values:
        if data.find_class(named, name, key=key) == 0:
            raise ConfigError(
                [
                    f"{key}: the one output of two classes has one number, of its positive class "
                    f"{named.class_names[1]}; leave {name!r} out"
                ]
            )
