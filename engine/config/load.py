"""Config: YAML files and ``key=value`` words become one frozen, checked :class:`Config`.

Precedence: defaults < YAML files, left to right < the command line = what a search sets. Order
never matters inside a layer. All mistakes are found at once, each as one line.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from engine.config import components, rules
from engine.config.choices import CHOICES
from engine.config.glossary import advice
from engine.config.hints import near_choice, source_of, unknown_key
from engine.config.messages import allowed, shown
from engine.config.mistakes import ComponentError, ConfigError, nearest
from engine.config.schema import (
    DEFAULT_DATA,
    DEFAULT_LOSS,
    OPEN_KEYS,
    SECTIONS,
    SELECTORS,
    TRACKERS,
    Config,
    TrackConfig,
    standard,
    tree,
)
from engine.config.strict_yaml import parse, read_shared_yaml

# Raise it when a default changes: old run folders then keep their meaning.
CONFIG_VERSION = 1

# Keys that change no number, and so are no part of a run's identity.
NOT_IDENTITY = (
    "track.",
    "runtime.device",
    "runtime.threads",
    "runtime.workers",
    "runtime.compile",
    "runtime.cache_features",
    "runtime.deterministic",
    "runtime.checkpoint_seconds",
    "runtime.checkpoint_epoch_seconds",
    "data.download",
    "data.cache_gb",
    "data.title",
)
# Keys that name another run, which counts as that run's fingerprint.
RUNS = ("model.init_from", "teacher")
SEEDS = ("seed", "data.imbalance.seed")
# Other spellings of a value.
ALIASES = {
    "runtime.precision": {
        "amp": "auto",
        "bf16": "bfloat16",
        "fp16": "float16",
        "fp32": "float32",
        "half": "float16",
    }
}
# The one in C, where PyYAML has it, is three times as fast.
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
DEFAULT_NAMES = {"data.name": DEFAULT_DATA, "loss.name": DEFAULT_LOSS}
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


def load(
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    *,
    values: Mapping[str, Any] | None = None,
    check_named_runs: bool = True,
    planned: Mapping[str, str] | None = None,
    has_begun: Callable[[Config], bool] | None = None,
) -> Config:
    """Merge YAML ``files``, ``key=value`` words and ``values`` (dotted keys) over the defaults.

    Args:
        files: YAML files, the later over the earlier.
        overrides: words such as ``loss.gamma=1``, values in YAML spelling.
        values: the same as Python values, with the same precedence as ``overrides``.
        check_named_runs: refuse a config that names a run (``teacher``, ``model.init_from``) that
            cannot be read. Unchecked, it has a fingerprint only where each of these can be read, or
            is gone and was called by its own.
        planned: folders of runs that are still to be made, and their fingerprints; only these
            may be missing.
        has_begun: says of a config whether its run has a checkpoint. It then needs the runs that it
            starts from no more, and those may have been deleted.

    Raises:
        ConfigError: with every mistake that was found, one line each.
    """
    mistakes: list[str] = []
    merged: Layer = {}
    for layer in [
        *(_read_file(Path(file), mistakes) for file in files),
        _read_words(overrides, values or {}, mistakes),
    ]:
        merged = _merge(merged, layer)
    names = {
        "data": _component_name("data", merged, DEFAULT_DATA, mistakes),
        "losses": _component_name("losses", merged, DEFAULT_LOSS, mistakes),
    }
    _read_choices(merged)
    model = tree(names["data"] or DEFAULT_DATA, names["losses"] or DEFAULT_LOSS, _trackers(merged))
    # Keys of an unknown component cannot be judged: its name is the one mistake to report.
    skipped = {"data.": names["data"], "loss.": names["losses"]}
    unknown = tuple(prefix for prefix, name in skipped.items() if name is None)
    judged = {key: setting for key, setting in merged.items() if not key.startswith(unknown)}
    config = _validate(model, judged, mistakes)
    if config is not None:
        mistakes += rules.check(config)
        mistakes += _of_runs(config, planned or {}, has_begun) if check_named_runs else []
    if mistakes or config is None:
        raise ConfigError(mistakes)
    return config


def flatten(config: BaseModel) -> dict[str, Any]:
    """Return ``{dotted key: value}`` in the order of the tree; values are plain JSON values."""
    return dict(_leaves(config.model_dump(mode="json")))


def defaults(config: Config) -> dict[str, Any]:
    """Return what :func:`flatten` gives when only the two component names are set."""
    return dict(_defaults(config.data.name, config.loss.name, config.track.to))


@cache
def _defaults(data: str, loss: str, trackers: tuple[str, ...]) -> Mapping[str, Any]:
    return flatten(standard(data, loss, trackers))


def dump(config: Config) -> str:
    """Return the whole config as YAML; loading it gives an equal object."""
    content = config.model_dump(mode="json")
    return yaml.dump(content, Dumper=_DUMPER, sort_keys=False, allow_unicode=True)


def fingerprint(
    config: Config, *, without_seeds: bool = False, planned: Mapping[str, str] | None = None
) -> str:
    """Return 12 hex digits that identify what this run computes.

    Covers ``CONFIG_VERSION`` and the keys that differ from their default, so that a key added later
    leaves old fingerprints alone; ``NOT_IDENTITY`` is left out. A key that names another run counts
    as that run's fingerprint.

    Args:
        config: the run.
        without_seeds: leave its seeds out, and those of the runs that it names.
        planned: folders of runs that are still to be made, and their fingerprints.
    """
    known = planned or {}
    usual = _defaults(config.data.name, config.loss.name, config.track.to)
    identity: dict[str, Any] = {"config_version": CONFIG_VERSION}
    for key, value in _leaves(config.model_dump(mode="json", include=_changed(config))):
        if value == DEFAULT_NAMES.get(key, usual[key]) or key.startswith(NOT_IDENTITY):
            continue
        if without_seeds and key in SEEDS:
            continue
        if key not in RUNS:
            identity[key] = value
            continue
        found = [
            known[run] if run in known else _of_named(run, without_seeds=without_seeds)
            for run in named_runs(value)
        ]
        # The mean of runs does not depend on their order.
        identity[key] = found[0] if isinstance(value, str) else sorted(found)
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _changed(config: Config) -> set[str]:
    """Return the sections that may hold a key of identity with another value than its default."""
    usual = standard(config.data.name, config.loss.name, config.track.to)
    named = {key.partition(".")[0] for key in DEFAULT_NAMES}
    return {
        section
        for section, value in config
        if (section in named or value != getattr(usual, section))
        and f"{section}." not in NOT_IDENTITY
    }


def _of_named(run: str, *, without_seeds: bool) -> str:
    """Return the fingerprint of a named run; of one that is gone, the name of its folder."""
    if is_gone(run):
        return Path(run).name
    config = load_run_config(run)
    if without_seeds and _gone_runs(config) and (group := _made(run).get("group")):
        return str(group)  # it cannot be had of a folder's name any more
    return fingerprint(config, without_seeds=without_seeds)


def is_gone(run: str) -> bool:
    """Return whether a folder that is called as run folders are, by a fingerprint, is not there."""
    folder = Path(run).expanduser()
    return re.fullmatch("[0-9a-f]{12}", folder.name) is not None and not folder.exists()


def _gone_runs(config: Config) -> set[str]:
    """Return those of the runs that a config names that are gone."""
    every = {run for key in RUNS for run in named_runs(attrgetter(key)(config))}
    return {run for run in every if is_gone(run)}


def named_runs(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the run folders that a key of ``RUNS`` names: none, one, or several to be averaged."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def load_run_config(run: str | Path, *, check_named_runs: bool = True) -> Config:
    """Load the config of a run folder.

    Args:
        run: the folder.
        check_named_runs: refuse the config where a run that it names cannot be read; a finished run
            needs those no more that are gone. Without, the config of such a run is returned
            unchecked, as it may have been edited.

    Raises:
        ConfigError: there is no readable ``config.yaml``, or it was edited since.
    """
    folder = Path(run).expanduser()
    config = load([folder / "config.yaml"], check_named_runs=False)
    mistakes = _unreadable_runs(config)
    if mistakes and not check_named_runs:
        return config
    if mistakes and (folder / "summary.json").exists():
        mistakes = _unreadable_runs(config, _gone_runs(config))
    if mistakes:
        raise ConfigError(mistakes)
    made = _made(folder)
    if made and made["fingerprint"] != (now := fingerprint(config)):
        raise ConfigError(
            [
                f"{folder / 'config.yaml'}: was edited: the run is {made['fingerprint']}, this "
                f"file says {now}; put the old file back"
            ]
        )
    return config


def _made(run: str | Path) -> Mapping[str, Any]:
    """Return what a run recorded of itself; nothing where that cannot be compared with today's."""
    try:
        made = json.loads((Path(run).expanduser() / "environment.json").read_bytes())
    except (OSError, ValueError):
        return {}
    is_comparable = isinstance(made, dict) and made.get("config_version") == CONFIG_VERSION
    return made if is_comparable else {}


# --- layers --------------------------------------------------------------------------------------


def _read_file(path: Path, mistakes: list[str]) -> Layer:
    try:
        content = read_shared_yaml(path)
    except ConfigError as error:
        mistakes += error.mistakes
        return {}
    return {k: Setting(v, str(path)) for k, v in _leaves(content)}


def _read_words(words: Sequence[str], values: Mapping[str, Any], mistakes: list[str]) -> Layer:
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
        leaves = dict(_leaves({key: value})) if isinstance(value, dict) else {full_key(key): value}
        for leaf, leaf_value in leaves.items():
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


def _leaves(value: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, inner in value.items():
        dotted = f"{prefix}{key}"
        # Below a section, only another section holds keys; elsewhere names may be a value.
        if isinstance(inner, dict) and inner and ("." not in dotted or dotted in SECTIONS):
            found += _leaves(inner, f"{dotted}.")
        else:
            found.append((full_key(dotted), inner))
    return found


def _merge(lower: Layer, upper: Layer) -> Layer:
    """Lay ``upper`` over ``lower``; a new choice drops the keys that belonged to the old one."""
    kept = dict(lower)
    for key in CHOOSING & upper.keys():
        if key not in lower or lower[key].value != upper[key].value:
            for other in lower:
                if rules.depends_on(other, key):
                    kept.pop(other, None)
    for owner in OPEN_KEYS:  # the upper `model.kwargs: {...}` takes the place of the lower one
        if owner in upper:
            kept = {key: value for key, value in kept.items() if open_key(key) != owner}
    return kept | upper


def open_key(key: str) -> str | None:
    """Return which of the open keys ``key`` is one below: ``model.kwargs`` of its arguments."""
    return next((owner for owner in OPEN_KEYS if key.startswith(f"{owner}.")), None)


# --- checks --------------------------------------------------------------------------------------


def _component_name(package: str, merged: Layer, default: str, mistakes: list[str]) -> str | None:
    key = "data.name" if package == "data" else "loss.name"
    name = merged[key].value if key in merged else default
    known = components.names(package)
    if name in known:
        components.read(package, str(name))
        return str(name)
    hint = nearest(str(name), known)
    if instead := advice(str(name)):
        hint = f"; write {instead}"
    mistakes.append(
        f"{key}={shown(name)}: unknown{hint}; one of {', '.join(known)}" + _where(merged[key])
    )
    return None


def _read_choices(merged: Layer) -> None:
    """Read every file that is chosen.

    Raises:
        ComponentError: it cannot be read, and is therefore not among the values of its selector.
    """
    for choice in CHOICES:
        name = merged[choice.selector].value if choice.selector in merged else choice.default
        if name in components.names(choice.package):
            components.read(choice.package, name)


def _trackers(merged: Layer) -> tuple[str, ...]:
    """Return the requested trackers that exist; validation names the others."""
    usual = TrackConfig.model_fields["to"].default
    asked = merged["track.to"].value if "track.to" in merged else usual
    known = components.names(TRACKERS)
    return tuple(n for n in asked if n in known) if isinstance(asked, list | tuple) else usual


def _where(setting: Setting) -> str:
    return "" if setting.source == "command line" else f" [{setting.source}]"


@cache
def keys(model: type[BaseModel]) -> Mapping[str, Any]:
    """Return ``{dotted key: pydantic FieldInfo}`` for every leaf of the tree."""
    found: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found |= {f"{name}.{key}": inner for key, inner in keys(annotation).items()}
        else:
            found[name] = info
    return MappingProxyType(found)


def _chosen(merged: Layer) -> dict[str, str]:
    """Return the name that is set for each section whose keys depend on it."""
    defaults = {"data": DEFAULT_DATA, "loss": DEFAULT_LOSS}
    named = {section: merged.get(f"{section}.name") for section in defaults}
    return {
        section: str(setting.value) if setting else defaults[section]
        for section, setting in named.items()
    }


def _validate(model: type[Config], merged: Layer, mistakes: list[str]) -> Config | None:
    known, types = keys(model), _key_types(model)
    nested: dict[str, Any] = {}
    opened = {key for key in merged if key not in known and open_key(key) is not None}
    # What an open key holds comes before the keys below it, which are added to it.
    for key, setting in sorted(merged.items(), key=lambda item: item[0] in opened):
        is_open = key in opened
        if key not in known and not is_open:
            line = unknown_key(key, setting.value, known, chosen=_chosen(merged)) + _where(setting)
            # Several keys inside one list are one mistake.
            mistakes += [line] if line not in mistakes else []
            continue
        *path, leaf = key.split(".")
        section = nested
        for part in path:
            section = section.setdefault(part, {})
        value = setting.value if is_open else _typed(key, setting, types[key])
        # What a file says is shared by all who read it.
        section[leaf] = copy.deepcopy(value) if is_open or isinstance(value, dict) else value
    try:
        return model.model_validate(nested)
    except ValidationError as error:
        wrong = {_known_prefix(e["loc"], known) for e in error.errors()}
        for key in sorted(wrong):
            info = known[key]
            if key not in merged:
                raise _own_default(key, info, model) from error
            setting = merged[key]
            if isinstance(setting.value, dict) and not _takes_names(info):
                mistakes.append(f"{key}: has no keys of its own; expected {allowed(info)}")
                continue
            mistakes.append(
                f"{key}={shown(setting.value)}: expected {allowed(info)}"
                f"{near_choice(key, setting.value, info)} ({info.description}){_where(setting)}"
            )
    return None


def _own_default(key: str, info: Any, model: type[Config]) -> ComponentError:
    """Say which file gives a key a default that the key does not take."""
    default = info.get_default(call_default_factory=True)
    message = f"has the default {shown(default)}, which is not {allowed(info)}"
    return ComponentError(source_of(key, model), message, key=key)


def _known_prefix(location: tuple[Any, ...], known: Mapping[str, Any]) -> str:
    parts = [str(part) for part in location]
    return next(key for n in range(len(parts), 0, -1) if (key := ".".join(parts[:n])) in known)


def _typed(key: str, setting: Setting, types: frozenset[Any]) -> Any:
    """Turn a list into a tuple, and a command-line word into text where the key expects text."""
    value = setting.value
    if key in ALIASES and isinstance(value, str):
        return ALIASES[key].get(value.lower(), value)
    if isinstance(value, list) and any(get_origin(kind) is tuple for kind in types):
        return tuple(value)
    if setting.text is not None and str in types and not _fits(value, types):
        return setting.text
    return tuple(value) if isinstance(value, list) else value


@cache
def _key_types(model: type[BaseModel]) -> Mapping[str, frozenset[Any]]:
    """Return ``{dotted key: the plain types it takes}`` for every leaf of the tree."""
    return {key: _plain_types(info.annotation) for key, info in keys(model).items()}


def _plain_types(annotation: Any) -> frozenset[Any]:
    """Return the plain types of a union, without their ranges."""
    if hasattr(annotation, "__metadata__"):
        return _plain_types(annotation.__origin__)
    if get_origin(annotation) in (Union, UnionType):
        return frozenset().union(*(_plain_types(a) for a in get_args(annotation)))
    return frozenset({annotation})


def _takes_names(info: Any) -> bool:
    return any(get_origin(kind) is dict for kind in _plain_types(info.annotation))


def _fits(value: Any, types: frozenset[Any]) -> bool:
    return type(value) in types or (value is None and type(None) in types)


def _of_runs(
    config: Config, planned: Collection[str], has_begun: Callable[[Config], bool] | None
) -> list[str]:
    """Return the mistakes of the runs that a config names; none where it can do without them."""
    mistakes = _unreadable_runs(config, planned)
    if mistakes and has_begun is not None:
        gone = _gone_runs(config)
        others = _unreadable_runs(config, {*planned, *gone})
        if not others and config.teacher not in gone and has_begun(config):
            return []
    return mistakes


def _unreadable_runs(config: Config, planned: Collection[str] = ()) -> list[str]:
    mistakes = []
    for key in RUNS:
        for run in named_runs(attrgetter(key)(config)):
            if run in planned:
                continue
            try:
                load_run_config(run)
            except ConfigError as error:
                mistakes.append(f"{key}={run}: not a run folder: {error.mistakes[0]}")
    return mistakes
