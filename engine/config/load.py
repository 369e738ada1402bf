"""Config: YAML files and ``key=value`` words become one frozen, checked :class:`Config`.

Precedence: defaults < YAML files, left to right < the command line = what a search sets. Order
never matters inside a layer. All mistakes are found at once, each as one line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from engine.config import rules
from engine.config.homes import expanded, unknown_homes
from engine.config.layers import Layer, leaves, merge, read_file, read_words
from engine.config.mistakes import ConfigError
from engine.config.schema import DEFAULT_DATA, DEFAULT_LOSS, Config, standard
from engine.config.strict_yaml import Dumper
from engine.config.validation import validate

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
DEFAULT_NAMES = {"data.name": DEFAULT_DATA, "loss.name": DEFAULT_LOSS}


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
        *(read_file(Path(file), mistakes) for file in files),
        read_words(overrides, values or {}, mistakes),
    ]:
        merged = merge(merged, layer)
    config = validate(merged, mistakes)
    homeless = [] if config is None else list(unknown_homes(config))
    mistakes += homeless
    if config is not None and not homeless:
        mistakes += rules.check(config)
        mistakes += _Runs().mistakes(config, planned or {}, has_begun) if check_named_runs else []
    if mistakes or config is None:
        raise ConfigError(mistakes)
    return config


def flatten(config: BaseModel) -> dict[str, Any]:
    """Return ``{dotted key: value}`` in the order of the tree; values are plain JSON values."""
    return dict(leaves(config.model_dump(mode="json")))


def defaults(config: Config) -> dict[str, Any]:
    """Return what :func:`flatten` gives when only the two component names are set."""
    return dict(_defaults(config.data.name, config.loss.name, config.track.to))


@cache
def _defaults(data: str, loss: str, trackers: tuple[str, ...]) -> Mapping[str, Any]:
    return flatten(standard(data, loss, trackers))


def dump(config: Config) -> str:
    """Return the whole config as YAML; loading it gives an equal object."""
    content = config.model_dump(mode="json")
    return yaml.dump(content, Dumper=Dumper, sort_keys=False, allow_unicode=True)


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
    return _fingerprint(config, _Runs(), without_seeds=without_seeds, planned=planned or {})


def _fingerprint(
    config: Config, runs: _Runs, *, without_seeds: bool, planned: Mapping[str, str]
) -> str:
    usual = _defaults(config.data.name, config.loss.name, config.track.to)
    identity: dict[str, Any] = {"config_version": CONFIG_VERSION}
    for key, value in leaves(config.model_dump(mode="json", include=_changed(config))):
        if value == DEFAULT_NAMES.get(key, usual[key]) or key.startswith(NOT_IDENTITY):
            continue
        if without_seeds and key in SEEDS:
            continue
        if key not in RUNS:
            identity[key] = value
            continue
        found = [
            planned[run] if run in planned else runs.fingerprint(run, without_seeds=without_seeds)
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


def is_gone(run: str) -> bool:
    """Return whether a folder that is called as run folders are, by a fingerprint, is not there."""
    folder = expanded(run)
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
    return _Runs().config(run, check_named_runs=check_named_runs)


def _made(run: str | Path) -> Mapping[str, Any]:
    """Return what a run recorded of itself; nothing where that cannot be compared with today's."""
    try:
        made = json.loads((expanded(run) / "environment.json").read_bytes())
    except (OSError, ValueError):
        return {}
    is_comparable = isinstance(made, dict) and made.get("config_version") == CONFIG_VERSION
    return made if is_comparable else {}


class _Runs:
    """Runs that are named, each read once: a chain of them names its first ones again and again."""

    def __init__(self) -> None:
        self._configs: dict[Path, Config | ConfigError] = {}
        self._fingerprints: dict[tuple[Path, bool], str] = {}

    def mistakes(
        self, config: Config, planned: Collection[str], has_begun: Callable[[Config], bool] | None
    ) -> list[str]:
        """Return those of the runs that a config names; none where it can do without them."""
        mistakes = self._unreadable(config, planned)
        if mistakes and has_begun is not None:
            gone = _gone_runs(config)
            others = self._unreadable(config, {*planned, *gone})
            if not others and config.teacher not in gone and has_begun(config):
                return []
        return mistakes

    def config(self, run: str | Path, *, check_named_runs: bool = True) -> Config:
        """Do what :func:`load_run_config` does."""
        folder = expanded(run)
        config = load([folder / "config.yaml"], check_named_runs=False)
        mistakes = self._unreadable(config)
        if mistakes and not check_named_runs:
            return config
        if mistakes and (folder / "summary.json").exists():
            mistakes = self._unreadable(config, _gone_runs(config))
        if mistakes:
            raise ConfigError(mistakes)
        made = _made(folder)
        now = _fingerprint(config, self, without_seeds=False, planned={}) if made else ""
        if made and made["fingerprint"] != now:
            raise ConfigError(
                [
                    f"{folder / 'config.yaml'}: was edited: the run is {made['fingerprint']}, this "
                    f"file says {now}; put the old file back"
                ]
            )
        return config

    def fingerprint(self, run: str, *, without_seeds: bool) -> str:
        """Return the fingerprint of a run; of one that is gone, the name of its folder."""
        if is_gone(run):
            return Path(run).name
        key = expanded(run).resolve(), without_seeds
        if key not in self._fingerprints:
            self._fingerprints[key] = self._fingerprint(run, without_seeds=without_seeds)
        return self._fingerprints[key]

    def _fingerprint(self, run: str, *, without_seeds: bool) -> str:
        config = self._checked(run)
        if without_seeds and _gone_runs(config) and (group := _made(run).get("group")):
            return str(group)  # it cannot be had of a folder's name any more
        return _fingerprint(config, self, without_seeds=without_seeds, planned={})

    def _checked(self, run: str) -> Config:
        """Return the config of a run whose own runs can be read, too."""
        folder = expanded(run).resolve()
        if folder not in self._configs:
            # What is found here while the run is being read is that it names itself.
            self._configs[folder] = ConfigError([f"{run}: starts from itself; put its files back"])
            try:
                self._configs[folder] = self.config(run)
            except ConfigError as error:
                self._configs[folder] = error
        found = self._configs[folder]
        if isinstance(found, ConfigError):
            raise found
        return found

    def _unreadable(self, config: Config, planned: Collection[str] = ()) -> list[str]:
        """Return a mistake for each run that a config names and that cannot be read."""
        mistakes = []
        for key in RUNS:
            for run in named_runs(attrgetter(key)(config)):
                if run in planned:
                    continue
                try:
                    self._checked(run)
                except ConfigError as error:
                    mistakes.append(f"{key}={run}: not a run folder: {error.mistakes[0]}")
        return mistakes
