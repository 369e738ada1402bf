"""A fair comparison of methods: the same trials and epochs for each, and what n of them find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.config.layers import full_key
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.config.strict_yaml import read_yaml
from engine.tuning.search import Search
from engine.tuning.search.reader import read_search_file
from engine.tuning.search.schema import Axis, Choice, Pruner, SearchFile
from engine.tuning.search.space import constants_of

# What all methods take from the file that leads, so that none gets more than another.
SHARED = ("metrics", "budget", "sampler", "pruner", "seeds", "confirm")


def is_search_file(path: Path) -> bool:
    """Return whether a YAML file is a search file, and not a config."""
    return "space" in read_yaml(path)


def leading(paths: Sequence[Path]) -> Path:
    """Return the file that sets the budget where there is no ``--search``: the first search file.

    Raises:
        ConfigError: none of them is one.
    """
    for path in paths:
        if is_search_file(path):
            return path
    raise ConfigError(["--compare: none of the files has a space; give one with --search FILE"])


def methods(paths: Sequence[Path], *, lead: Search, is_shared: bool) -> tuple[Search, ...]:
    """Return one search for each file, alike in all but the method.

    A search file brings its own space, ``set`` and ``enqueue``. Any other YAML file is a config
    that is laid over the base one, and is searched over those keys of the lead's space that exist
    with it.

    Args:
        paths: one file a method; none where nothing is compared.
        lead: whose metric, budget, sampler, seeds and confirm stage all get; its study is the
            name of the comparison. Nothing is pruned, or one method would get more epochs.
        is_shared: whether the lead's space is there for configs.

    Raises:
        ConfigError: with every mistake that was found, one line each.
    """
    if not paths:
        return ()
    lead = replace(lead, file=lead.file.model_copy(update={"pruner": Pruner()}))
    mistakes = [*unfair(lead.file, lead.path), *_alike(paths)]
    found = []
    for path in paths:
        try:
            found.append(_method(path, lead, is_shared=is_shared))
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    return tuple(found)


def check_epochs(
    methods: Sequence[Search],
    configs: Sequence[Sequence[Config]],
    *,
    who: str = "--compare: the methods",
    advice: str = "set budget.epochs",
) -> None:
    """Refuse methods that train for different times.

    Args:
        methods: the searches.
        configs: of the corners of each one's space.
        who: trains for different times, in the words of the command.
        advice: what to do about it.

    Raises:
        ConfigError: naming each one's epochs.
    """
    epochs = {
        method.study: {config.schedule.epochs for config in corners}
        for method, corners in zip(methods, configs, strict=True)
    }
    if len(set().union(*epochs.values())) > 1:
        each = ", ".join(f"{name} {'/'.join(map(str, sorted(n)))}" for name, n in epochs.items())
        raise ConfigError([f"{who} train for different epochs ({each}); {advice}"])


def _method(path: Path, lead: Search, *, is_shared: bool) -> Search:
    study = f"{lead.study}-{path.stem}"
    if is_search_file(path):
        alike: dict[str, Any] = {name: getattr(lead.file, name) for name in SHARED}
        file = read_search_file(path).model_copy(update=alike)
        return replace(lead, file=file, path=path, study=study)
    if not is_shared:
        raise ConfigError([f"{path}: is not a search file; --search FILE gives configs a space"])
    overlap = {full_key(key) for key in read_yaml(path)} & {*map(full_key, lead.file.fixed)}
    if overlap:
        raise ConfigError([f"{path}: {min(overlap)}: {lead.path.name} sets this key for all"])
    search = replace(lead, files=(*lead.files, path), study=study)
    space = existing(lead.file.space, constants_of(search))
    if not space:
        raise ConfigError([f"{path}: no key of the space of {lead.path.name} exists with it"])
    queue = tuple(values for values in lead.file.enqueue if values.keys() <= space.keys())
    return replace(search, file=lead.file.model_copy(update={"space": space, "enqueue": queue}))


def existing(space: Mapping[str, Axis], constants: Mapping[str, Any]) -> dict[str, Axis]:
    """Return the keys of a shared space whose conditions one method can meet."""
    found: dict[str, Axis] = {}
    for key, axis in space.items():
        if all(
            set(wanted) & _values(name, found, constants) for name, wanted in axis.where.items()
        ):
            found[key] = axis
    return found


def _values(name: str, space: Mapping[str, Axis], constants: Mapping[str, Any]) -> set[Any]:
    """Return what a key that a condition names can be."""
    axis = space.get(name)
    if isinstance(axis, Choice):
        return set(axis.values)
    return {constants[name]} if name in constants else set()


def unfair(file: SearchFile, path: Path) -> Iterator[str]:
    """Yield what of a search file would give one method more than another."""
    if file.sampler.name == "grid":
        yield f"{path}: sampler=grid: a grid's size is not a budget; compare with tpe, gp or random"
    if file.budget.trials is None:
        yield f"{path}: budget.trials: is missing; every method gets as many"
    if file.budget.timeout is not None:
        yield f"{path}: budget.timeout: would give a fast method more trials; leave it out"


def _alike(paths: Sequence[Path]) -> Iterator[str]:
    stems = [path.stem for path in paths]
    if len(paths) < 2:
        yield "--compare: expected two files or more"
    for stem in sorted({stem for stem in stems if stems.count(stem) > 1}):
        yield f"--compare: {stem} is named twice; the files' names tell the methods apart"
