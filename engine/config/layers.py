"""Layers of a config: what files and words set, by dotted key, and one layer laid over another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.config.choices import CHOICES
from engine.config.messages import shown
from engine.config.mistakes import ConfigError
from engine.config.rules import needs
from engine.config.schema import OPEN_KEYS, SECTIONS, SELECTORS
from engine.config.strict_yaml import parse, read_shared_yaml

# Keys of which a new value drops the keys that belonged to the old one.
CHOOSING = {f"{section}.{selector}" for section, selector in SELECTORS.items()}
CHOOSING |= {choice.selector for choice in CHOICES}


@dataclass(frozen=True)
class Setting:
    """One value as somebody wrote it. ``text`` is its spelling on the command line."""

    value: Any
    source: str
    text: str | None = None


Layer = dict[str, Setting]


def read_file(path: Path, mistakes: list[str]) -> Layer:
    """Read what a YAML file sets; one that cannot be read adds its mistakes, and sets nothing."""
    try:
        content = read_shared_yaml(path)
    except ConfigError as error:
        mistakes += error.mistakes
        return {}
    return {k: Setting(v, str(path)) for k, v in leaves(content)}


def read_words(words: Sequence[str], values: Mapping[str, Any], mistakes: list[str]) -> Layer:
    """Read what words such as ``loss.gamma=1`` set, and over them what ``values`` do.

    Args:
        words: keys with values in YAML spelling.
        values: Python values by dotted key.
        mistakes: gets a line for each word that is none, or sets again what another one has set.
    """
    layer: Layer = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            mistakes.append(f"{word}: expected key=value or a file that ends in .yaml")
            continue
        try:
            value = parse(text)
        except yaml.YAMLError:
            value = text
        found = dict(leaves({key: value})) if isinstance(value, dict) else {full_key(key): value}
        for leaf, leaf_value in found.items():
            spelling = text if not isinstance(value, dict) else None
            if leaf in layer and layer[leaf].value != leaf_value:
                first = shown(layer[leaf].value)
                mistakes.append(f"{leaf}: set twice, to {first} and to {shown(leaf_value)}")
            layer[leaf] = Setting(leaf_value, "command line", spelling)
    for key, value in values.items():
        layer[full_key(key)] = Setting(value, "values")
    return layer


def full_key(key: str) -> str:
    """Map ``loss`` to ``loss.name``: a section set to a plain value sets its selector."""
    return f"{key}.{SELECTORS[key]}" if key in SELECTORS else key


def leaves(value: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the keys of nested sections, dotted, with their values.

    >>> leaves({"loss": {"name": "dice", "smooth": 1}, "seed": 0})
    [('loss.name', 'dice'), ('loss.smooth', 1), ('seed', 0)]
    """
    found = []
    for key, inner in value.items():
        dotted = f"{prefix}{key}"
        # Below a section, only another section holds keys; elsewhere names may be a value.
        if isinstance(inner, dict) and inner and ("." not in dotted or dotted in SECTIONS):
            found += leaves(inner, f"{dotted}.")
        else:
            found.append((full_key(dotted), inner))
    return found


def merge(lower: Layer, upper: Layer) -> Layer:
    """Lay ``upper`` over ``lower``; a new choice drops the keys that belonged to the old one."""
    kept = dict(lower)
    for key in CHOOSING & upper.keys():
        if key not in lower or lower[key].value != upper[key].value:
            for other in lower:
                if needs.depends_on(other, key):
                    kept.pop(other, None)
    for owner in OPEN_KEYS:  # the upper `model.kwargs: {...}` takes the place of the lower one
        if owner in upper:
            kept = {key: value for key, value in kept.items() if open_key(key) != owner}
    return kept | upper


def open_key(key: str) -> str | None:
    """Return which of the open keys ``key`` is one below: ``model.kwargs`` of its arguments."""
    return next((owner for owner in OPEN_KEYS if key.startswith(f"{owner}.")), None)
