"""Settings to be confirmed: the default, and the best that a search has found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.config.load import fingerprint
from engine.config.schema import Config
from engine.tuning.study.trials import Objective, ranked

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from engine.tuning.search import Search

DEFAULT = "default"


@dataclass(frozen=True)
class Candidate:
    """A setting to be confirmed.

    Attributes:
        name: ``default``, ``trial 17`` ...
        config: with the base config's seed and ``track``.
        params: dotted keys that the search chose; of the default none.
        trial: number in the study.
        searched: the trial's values in the search.
    """

    name: str
    config: Config
    params: Mapping[str, Any]
    trial: int | None = None
    searched: tuple[float, ...] | None = None


def candidates(
    search: Search,
    trials: Sequence[FrozenTrial],
    objectives: Sequence[Objective],
    *,
    top: int,
) -> tuple[Candidate, ...]:
    """Return the default, and the ``top`` best settings that differ from it and each other.

    Args:
        search: makes configs of the trials' parameters.
        trials: of the study.
        objectives: of the study; the first one ranks.
        top: how many settings beside the default; fewer where the search has found fewer.
    """
    base = search.base
    found = [Candidate(DEFAULT, base, {})]
    known = {fingerprint(base)}
    for trial in ranked(trials, objectives):
        if len(found) > top:
            break
        candidate = of_trial(trial, search)
        if (name := fingerprint(candidate.config)) not in known:
            known.add(name)
            found.append(candidate)
    return tuple(found)


def of_trial(trial: FrozenTrial, search: Search) -> Candidate:
    """Return the setting of one trial."""
    params = trial.params
    name = f"trial {trial.number}"
    return Candidate(name, search.config(params), params, trial.number, tuple(trial.values))
