"""Whether what was set fits the keys that there are: names of components, keys, types, ranges."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from engine.config import components
from engine.config.choices import CHOICES
from engine.config.glossary import advice
from engine.config.hints import near_choice, source_of, unknown_key
from engine.config.layers import Layer, Setting, open_key
from engine.config.messages import allowed, shown
from engine.config.mistakes import ComponentError, nearest
from engine.config.schema import DEFAULT_DATA, DEFAULT_LOSS, TRACKERS, Config, TrackConfig, tree

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


def validate(merged: Layer, mistakes: list[str]) -> Config | None:
    """Build the config that a layer describes, its defaults where it says nothing.

    Args:
        merged: all that was set.
        mistakes: gets a line for each; there is no config then.

    Raises:
        ComponentError: a component's file cannot be read, or has a default that its key refuses.
    """
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
    return _built(model, judged, mistakes)


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


def _built(model: type[Config], merged: Layer, mistakes: list[str]) -> Config | None:
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
