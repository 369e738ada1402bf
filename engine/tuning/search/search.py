"""A search: a search file over a base config, from sampled values to the config of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.config.load import fingerprint, load
from engine.config.schema import Config
from engine.tuning.search.search_file import SearchFile


@dataclass(frozen=True)
class Search:
    """What every trial shares.

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
        """The same search under another name."""
        return replace(self, study=study)

    def base(self) -> Config:
        """The default to compare with: the base config, as long and selected as the trials are."""
        return load(self.files, self.overrides, values=self._common())

    def config(self, params: Mapping[str, Any]) -> Config:
        """The config of a trial with these values of the space's keys.

        Its ``track`` section is that of the base config: see :meth:`StudyFolder.trial_config`.
        """
        return load(
            self.files, self.overrides, values={**self._common(), **self.file.fixed, **params}
        )

    def identity(self) -> dict[str, Any]:
        """What a study must have been made with to be gone on with; a budget may grow."""
        file = self.file.model_dump(mode="json", exclude={"budget", "confirm", "sampler", "pruner"})
        return {"base": fingerprint(self.base()), **{key: file[key] for key in sorted(file)}}

    def search_seeds(self, base: Config) -> Sequence[int]:
        """The seeds that trials are trained with; a confirm stage uses none of them."""
        return range(base.seed, base.seed + self.file.seeds)

    def _common(self) -> dict[str, Any]:
        epochs = self.file.budget.epochs
        chosen: dict[str, Any] = {"evaluate.metric": self.file.metrics[0]}
        return chosen if epochs is None else {**chosen, "schedule.epochs": epochs}
