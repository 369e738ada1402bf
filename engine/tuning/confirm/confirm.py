"""The confirm stage: the best settings and the default, trained again on fresh seeds.

The best value of a search is the best of many noisy ones, and so too good. Only here is test
predicted, once a run; what chooses is validation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config.load import fingerprint
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.training.files import write_json
from engine.training.provenance import finished_summary
from engine.training.run_folder import BusyError, RunFolder
from engine.tuning.study.trials import Objective, best_first, complete

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from engine.training.summary import Summary
    from engine.tuning.search.search import Search

DEFAULT = "default"
SEEDS_END = 2**32


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
        """The file that says so, beside the run folder."""
        path = self.folder.path
        return path.with_name(f"{path.name}.diverged.json")


def candidates(
    search: Search,
    trials: Sequence[FrozenTrial],
    objectives: Sequence[Objective],
    *,
    top: int,
) -> tuple[Candidate, ...]:
    """The default, and the ``top`` best settings of the search that differ from it and each other.

    With several objectives the front's best by each of them in turn, then by the first alone.

    Args:
        search: makes configs of the trials' parameters.
        trials: of the study.
        objectives: of the study; the first one ranks.
        top: how many settings beside the default; fewer where the search has found fewer.
    """
    base = search.base()
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
    """The setting of one trial."""
    params = trial.params
    name = f"trial {trial.number}"
    return Candidate(name, search.config(params), params, trial.number, tuple(trial.values))


def ranked(trials: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> list[FrozenTrial]:
    """Complete trials, the best first; of several objectives as :func:`candidates` takes them."""
    done = complete(trials)
    if len(objectives) == 1:
        return best_first(done, objectives[0])
    on_front = set(front(done, objectives))
    inside = [trial for trial in done if trial.number in on_front]
    by_each = [best_first(inside, objective, index=i) for i, objective in enumerate(objectives)]
    in_turn = [trial for place in zip(*by_each, strict=True) for trial in place]
    found = {t.number: t for t in [*in_turn, *best_first(done, objectives[0])]}
    return list(found.values())


def front(trials: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> list[int]:
    """Numbers of the complete trials that no other one beats in every objective at once."""
    done = complete(trials)
    signed = {
        t.number: [o.sign * v for o, v in zip(objectives, t.values, strict=True)] for t in done
    }

    def is_beaten(number: int) -> bool:
        own = signed[number]
        return any(
            other != own and all(b >= a for a, b in zip(own, other, strict=True))
            for other in signed.values()
        )

    return [number for number in signed if not is_beaten(number)]


def fresh_seeds(searched: Sequence[int], *, number: int) -> tuple[int, ...]:
    """The ``number`` seeds that follow the largest of the search's own.

    >>> fresh_seeds(range(0, 1), number=3)
    (1, 2, 3)
    """
    after = max(searched) + 1
    return tuple((after + i) % SEEDS_END for i in range(number))


def jobs(found: Sequence[Candidate], *, seeds: Sequence[int], root: Path, group: str) -> list[Job]:
    """Every setting with every seed; all settings with the first seed come first.

    A stage that is stopped early thus has pairs to compare.

    Args:
        found: from :func:`candidates`.
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
    begins: Callable[[Job, int], None] | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Train every job that is not finished; any number of processes may do so at once.

    A finished run folder stands, an unfinished one resumes. A run that another process is writing
    is passed over and looked at again, and taken up where that process died.

    Args:
        todo: from :func:`jobs`, in every process the same.
        run: trains a config, as ``train.run`` does.
        begins: told each job that this process takes up, and how many were not yet known to be
            finished then.
        wait: called with seconds when all that is left is being written elsewhere.
    """
    from engine.training.divergence import DivergenceError

    left = [job for job in todo if not is_ended(job)]
    while left:
        busy: list[Job] = []
        for number, job in enumerate(left):
            if is_ended(job):
                continue
            if begins is not None:
                begins(job, len(left) - number + len(busy))
            try:
                run(job.config)
            except BusyError:
                busy.append(job)
            except DivergenceError as error:
                write_json(job.diverged, {"seed": job.seed, "reason": str(error)})
        if len(busy) == len(left):
            wait(1.0)
        left = busy


def is_ended(job: Job) -> bool:
    """Whether a job has its result, or is known to diverge."""
    return job.folder.summary.exists() or job.diverged.exists()


def diverged(todo: Sequence[Job]) -> set[tuple[str, int]]:
    """Setting's name and seed of the runs that are known to diverge."""
    return {(job.candidate.name, job.seed) for job in todo if job.diverged.exists()}


def summaries(todo: Sequence[Job]) -> dict[tuple[str, int], Summary]:
    """What the finished runs found, by the setting's name and the seed; diverged ones are left out.

    Raises:
        ConfigError: the runs were not all made on one split.
    """
    found = {}
    for job in todo:
        if (summary := finished_summary(job.folder)) is not None:
            found[job.candidate.name, job.seed] = summary
    splits = {summary.split_fingerprint for summary in found.values()}
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
