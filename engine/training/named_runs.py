"""The runs that a config names, ``teacher`` and ``model.init_from``: finished, or refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engine.config.load import is_gone, named_runs
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.training import trained
from engine.training.facts import read_facts
from engine.training.weights_hash import Hashes, file_hashes, former_hash, weights_hash


def teacher_facts(run: str) -> dict[str, Any]:
    """Return what the teacher's run folder says of its data.

    Raises:
        ConfigError: the run is not finished, so that its weights would change.
    """
    _require_finished("teacher", run)
    return read_facts(run)


def finished_weights(key: str, run: str) -> trained.Weights:
    """Return the headline weights of a run that a key of the config names.

    Raises:
        ConfigError: the run is not finished, so that its weights would change.
    """
    _require_finished(key, run)
    return trained.load_weights(run)


def _require_finished(key: str, run: str) -> None:
    if is_gone(run):
        raise ConfigError([f"{key}={run}: is not there any more; put it back, or make it again"])
    if not (Path(run).expanduser() / "summary.json").exists():
        raise ConfigError([f"{key}={run}: is not finished; run its own command to finish it"])


def named_weights(config: Config) -> Hashes:
    """Return the hashes of the weights that a run is made with, under the keys of its facts.

    What is not there any more is left out.

    Raises:
        ConfigError: a run that the config names is not finished.
    """
    named = {
        "teacher_weights": ("teacher", config.teacher),
        "start_weights": ("model.init_from", config.model.init_from),
    }
    today, former = file_hashes(config), {}
    for fact, (key, value) in named.items():
        runs = named_runs(value)
        if any(is_gone(run) for run in runs):
            continue
        states = (finished_weights(key, run).state for run in runs)  # one in memory at a time
        found = [(weights_hash(state), former_hash(state)) for state in states]
        today[fact] = joined_identity(now for now, _ in found)
        former[fact] = joined_identity(before for _, before in found)
    return Hashes(today, former)


def joined_identity(hashes: Iterable[str]) -> str | None:
    """Return the hashes of the runs that a key names as one text, in any order; None for none."""
    return "+".join(sorted(hashes)) or None
