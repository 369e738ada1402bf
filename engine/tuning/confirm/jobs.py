"""The runs of a confirm stage: settings with fresh seeds, shared by any number of processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.report.same_data import todays_names
from engine.training.files import write_json
from engine.training.provenance import finished_summary
from engine.training.run_folder import BusyError, RunFolder
from engine.tuning.confirm.candidates import Candidate

if TYPE_CHECKING:
    from engine.training.summary import Summary

SEEDS_END = 2**32


@dataclass(frozen=True)
class Job:
    """One run of the stage: a setting with a fresh seed."""

    candidate: Candidate
    seed: int
    config: Config

    @property
    def folder(self) -> RunFolder:
        """Where it trains."""
        return RunFolder.of(self.config)

    @property
    def diverged(self) -> Path:
        """The file that is beside the run folder once the run has diverged."""
        path = self.folder.path
        return path.with_name(f"{path.name}.diverged.json")


def fresh_seeds(searched: Sequence[int], *, number: int) -> tuple[int, ...]:
    """Return the ``number`` seeds that follow the largest of the search's own.

    >>> fresh_seeds(range(0, 1), number=3)
    (1, 2, 3)
    """
    after = max(searched) + 1
    return tuple((after + i) % SEEDS_END for i in range(number))


def jobs_of(
    found: Sequence[Candidate], *, seeds: Sequence[int], root: Path, group: str
) -> list[Job]:
    """Return every setting with every seed; all settings with the first seed come first.

    A stage that is stopped early thus has pairs to compare.

    Args:
        found: the settings.
        seeds: from :func:`fresh_seeds`.
        root: the study folder; the run folders go to ``confirm/`` inside.
        group: W&B group, the study.
    """
    return [
        Job(candidate, seed, _placed(candidate.config, seed=seed, root=root, group=group))
        for seed in seeds
        for candidate in found
    ]


def _placed(config: Config, *, seed: int, root: Path, group: str) -> Config:
    changed: dict[str, Any] = {"root": str(root), "name": "confirm", "figures": False}
    if config.track.is_tracked:
        changed["group"] = group
    track = config.track.model_copy(update=changed)
    return config.model_copy(update={"seed": seed, "track": track})


def train_all(
    todo: Sequence[Job],
    *,
    run: Callable[[Config], object],
    begins: Callable[[str, int, int], None] | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Train every job that is not finished; any number of processes may do so at once.

    A finished run folder stands, an unfinished one resumes. A run that another process is writing
    is passed over and looked at again, and taken up where that process died.

    Args:
        todo: from :func:`jobs_of`, in every process the same.
        run: trains a config, as ``train.run`` does.
        begins: told the setting's name and the seed of each job that this process takes up, and
            how many were not yet known to be finished then.
        wait: called with seconds when all that is left is being written elsewhere.
    """
    from engine.training.divergence import DivergenceError

    remaining = [job for job in todo if not is_ended(job)]
    while remaining:
        busy: list[Job] = []
        for number, job in enumerate(remaining):
            if is_ended(job):
                continue
            if begins is not None:
                begins(job.candidate.name, job.seed, len(remaining) - number + len(busy))
            try:
                run(job.config)
            except BusyError:
                busy.append(job)
            except DivergenceError as error:
                write_json(job.diverged, {"seed": job.seed, "reason": str(error)})
        if len(busy) == len(remaining):
            wait(1.0)
        remaining = busy


def is_ended(job: Job) -> bool:
    """Return whether a job has its result, or is known to diverge."""
    return job.folder.summary.exists() or job.diverged.exists()


def diverged(todo: Sequence[Job]) -> set[tuple[str, int]]:
    """Return setting's name and seed of the runs that are known to diverge."""
    return {(job.candidate.name, job.seed) for job in todo if job.diverged.exists()}


def summaries(todo: Sequence[Job]) -> dict[tuple[str, int], Summary]:
    """Return what the finished runs found, by the setting's name and the seed.

    Raises:
        ConfigError: the runs were not all made on one split.
    """
    found = {}
    for job in todo:
        if (summary := finished_summary(job.folder)) is not None:
            found[job.candidate.name, job.seed] = summary
    made = [(s.split_fingerprint, s.former_fingerprints) for s in found.values()]
    names = todays_names(made)
    splits = {names.get(split, split) for split, _ in made}
    if len(splits) > 1:
        folder = todo[0].folder.path.parent
        raise ConfigError(
            [
                f"{folder}: its runs were made on {len(splits)} different splits "
                f"({', '.join(sorted(splits))}); put the old data back, or remove the folder to "
                "confirm again"
            ]
        )
    return found
