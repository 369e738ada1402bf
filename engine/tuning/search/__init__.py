"""What is searched: a search file over a base config, its space, and the methods to compare.

``schema`` says what a search file may hold and ``reader`` reads one; ``space`` holds it against the
config; ``methods`` makes fair comparisons of several; ``command_line`` is that of ``sweep.py``.
Nothing here imports torch or Optuna.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.config.load import fingerprint, load
from engine.config.schema import Config
from engine.training.named_precision import settled
from engine.tuning.search.schema import Choice, SearchFile


@dataclass(frozen=True)
class Search:
    """A search file over a base config, from sampled values to the config of a trial.

    Attributes:
        file: the contents of the search file.
        path: where it is.
        files: YAML files of the base config, as for ``train.py``.
        overrides: ``key=value`` words of the base config.
        study: name of the study and of its folder.
    """

    file: SearchFile
    path: Path
    files: tuple[Path, ...]
    overrides: tuple[str, ...]
    study: str

    def named(self, study: str) -> Search:
        """Return the same search under another name."""
        return replace(self, study=study)

    @functools.cached_property
    def base(self) -> Config:
        """The default to compare with: the base config, as long and selected as the trials are."""
        return settled(load(self.files, self.overrides, values=self._common()))

    def config(self, params: Mapping[str, Any]) -> Config:
        """Return the config of a trial with these values of the space's keys.

        Its ``track`` section is that of the base config: see :meth:`StudyFolder.trial_config`.
        """
        values = {**self._common(), **self.values(params)}
        return settled(load(self.files, self.overrides, values=values))

    def values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config keys that the file gives a trial: those of ``set``, and its own."""
        return {**self.file.fixed, **self._unspelled(params)}

    def identity(self) -> dict[str, Any]:
        """Return what a study must have been made with to be resumed; a budget may grow."""
        file = self.file.model_dump(mode="json", exclude={"budget", "confirm", "sampler", "pruner"})
        return {"base": fingerprint(self.base), **{key: file[key] for key in sorted(file)}}

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds that trials are trained with; a confirm stage uses none of them."""
        return range(self.base.seed, self.base.seed + self.file.seeds)

    def _common(self) -> dict[str, Any]:
        epochs = self.file.budget.epochs
        chosen: dict[str, Any] = {"evaluate.metric": self.file.metrics[0]}
        return chosen if epochs is None else {**chosen, "schedule.epochs": epochs}

    def _unspelled(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``params`` with the lists that a choice holds as text."""
        space = self.file.space
        return {
            key: axis.value_of(value) if isinstance(axis := space.get(key), Choice) else value
            for key, value in params.items()
        }
