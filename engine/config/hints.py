"""What was probably meant by a key or a choice that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

from engine.config import components
from engine.config.choices import CHOICES
from engine.config.glossary import advice
from engine.config.messages import allowed, shown
from engine.config.mistakes import nearest
from engine.config.schema import TRACKERS, Config, tracker_fields
from engine.config.strict_yaml import plain_number

# Sections whose choices are whole packages, with the keys of the chosen files only.
PACKAGES = {"data": "data", "loss": "losses", "track": TRACKERS}


def unknown_key(
    key: str, value: Any, known: Mapping[str, Any], *, chosen: Mapping[str, str]
) -> str:
    """Say what is wrong with a key that is not among the ``known``, and what was probably meant.

    Args:
        key: as written.
        value: as written.
        known: the keys of the config.
        chosen: what the config names of each section whose keys depend on it.
    """
    # Parts of keys, in the order of the tree: data, data.imbalance, sampler ...
    sections = list(dict.fromkeys(k[:i] for k in known for i, c in enumerate(k) if c == "."))
    if key in sections:
        inside = ", ".join(k for k in known if k.startswith(f"{key}."))
        return f"{key}={shown(value)}: is a section; set one of {inside}"
    above = next((k for k in known if key.startswith(f"{k}.")), None)
    if above is not None:
        return f"{above}: has no keys of its own; expected {allowed(known[above])}"
    if owners := _owners(key):
        return f"{key}: {_no_key_of(chosen, key.partition('.')[0], owners)}"
    return f"{key}: unknown key{_hint(key, known, sections)}"


def _owners(key: str) -> list[str]:
    """Return the losses, data sets or trackers that have this very key."""
    section, _, leaf = key.partition(".")
    package = PACKAGES.get(section)
    if package is None:
        return []
    files = components.read_all(package).components
    return [name for name in files if leaf in _own_keys(package, name)]


def _no_key_of(chosen: Mapping[str, str], section: str, owners: Sequence[str]) -> str:
    """Say that a key is not one of what is chosen, but of its owners."""
    *most, last = owners
    named = f"{', '.join(most)} and {last} have" if most else f"{last} has"
    if section not in chosen:
        return f"{named} this key, and track.to does not name {'any of them' if most else 'it'}"
    return f"{section}={chosen[section]} has no such key; {named} it"


def _hint(key: str, known: Mapping[str, Any], sections: Sequence[str]) -> str:
    """Guess what somebody meant who wrote a key that does not exist."""
    word = key.removesuffix(".name").rpartition(".")[2]
    same_word = [k for k in known if k.rpartition(".")[2] == word]
    if "." in key and (owned := _owned(key, known)):
        return owned
    if same_word:
        return f" (did you mean {difflib.get_close_matches(key, same_word, n=1, cutoff=0)[0]}?)"
    if instead := advice(word):
        return f"; write {instead}"
    if "." in key:
        return nearest(key, known) or nearest(key, sections)
    found = nearest(key, Config.model_fields) or _owned(key, known)
    return found or nearest(key, sections) or nearest(key, known)


def _owned(key: str, known: Collection[str]) -> str:
    """Say which losses or data sets have a key that is spelled nearly so."""
    section, _, leaf = key.rpartition(".")
    for owner, package in PACKAGES.items():
        if section not in ("", owner):
            continue
        files = components.read_all(package).components
        keys_of = {name: _own_keys(package, name) for name in files}
        every = sorted(set().union(*keys_of.values()))
        found = difflib.get_close_matches(leaf, every, n=1, cutoff=0.8 if section else 1)
        names = ", ".join(name for name, keys in keys_of.items() if found and found[0] in keys)
        if found and f"{owner}.{found[0]}" in known:
            return f" (did you mean {owner}.{found[0]}?)"
        if found:
            return f" (did you mean {owner}.{found[0]}, a key of {names}?)"
    return ""


def _own_keys(package: str, name: str) -> set[str]:
    if package == TRACKERS:
        return set(tracker_fields(name))
    return {key.name for key in components.read(package, name).keys}


def near_choice(key: str, value: Any, info: Any) -> str:
    """Suggest what comes nearest to a value that is none of the key's; empty if nothing does."""
    if isinstance(value, str) and (number := plain_number(value)):
        return f"; write {number}" + (" without quotes" if number == value else "")
    # For a number the section's own word knows better: data.imbalance=100 is a factor.
    word = str(value) if isinstance(value, str) else key.split(".")[-2] if "." in key else key
    taken = get_args(info.annotation)
    if Ellipsis in taken:  # a list: the first of its items that is no choice
        taken = get_args(taken[0])
        items = value if isinstance(value, list | tuple) else [value]
        value = next((item for item in items if item not in taken), "")
    choices = [str(a) for a in taken if isinstance(a, str)]
    if choices and (instead := advice(word)):
        return f"; write {instead}"
    near = nearest(str(value), choices)
    if key == "track.to" and not near and str(value).isidentifier():
        return f", or add {TRACKERS.replace('.', '/')}/{value}.py"
    return near


def source_of(key: str, model: type[Config]) -> str:
    """Return the file that declares a key of the tree, as in ``losses/ldam.py``."""
    section, _, leaf = key.partition(".")
    places = [(c.package, name) for c in CHOICES if c.section == section for name in c.components]
    if section in ("data", "loss"):
        chosen: Any = model.model_fields[section].annotation
        places.append((PACKAGES[section], chosen.model_fields["name"].default))
    elif section == "track":
        places += [(TRACKERS, name) for name in components.read_all(TRACKERS).components]
    for package, name in places:
        defaults = components.read(package, name).class_facts.get("shared_defaults", {})
        if leaf in _own_keys(package, name) or leaf in defaults:
            return components.path_of(components.folder(package) / f"{name}.py")
    return "engine/config/schema.py"
