"""How jobs stand, from what they left in their folder and what the queue says of the others."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.cluster.submit import SUBMITTED
from engine.config.mistakes import ConfigError

SECONDS = 20  # for the queue to answer
QUEUED = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "CONFIGURING", "SUSPENDED")


@dataclass(frozen=True)
class Submitted:
    """A command that was sent: when, to what, as which jobs."""

    time: str
    cluster: str
    jobs: tuple[str, ...]
    command: str


def read_submitted(folder: Path) -> list[Submitted]:
    """Return what was sent from here, the oldest first.

    Raises:
        ConfigError: nothing was.
    """
    path = folder / SUBMITTED
    if not path.is_file():
        raise ConfigError([f"{folder}: no jobs were sent from here (no {SUBMITTED})"])
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Submitted(**line | {"jobs": tuple(line["jobs"])}) for line in lines]


def states_of(submitted: Submitted, folder: Path) -> dict[str, str]:
    """Return ``queued``, ``running``, ``done`` or what went wrong, by job."""
    ended = {job: _ending(job, folder) for job in submitted.jobs}
    open_ = [job for job, ending in ended.items() if ending is None]
    if submitted.cluster == "slurm":
        waiting = _queue(open_)
    else:
        waiting = {job: "running" for job in open_ if _is_alive(int(job))}
    gone = f"gone without an end; see {folder}/"
    return {
        job: ending or waiting.get(job) or f"{gone}{job}_0_log.err" for job, ending in ended.items()
    }


def _ending(job: str, folder: Path) -> str | None:
    try:
        code = int((folder / f"{job}.exit").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return f"failed with exit code {code}; see {folder}/{job}_0_log.out" if code else "done"


def _queue(jobs: Sequence[str]) -> dict[str, str]:
    """Return what Slurm says of these jobs; those that it no longer knows are left out."""
    if not jobs:
        return {}
    arrays = sorted({job.partition("_")[0] for job in jobs})
    command = ["squeue", "-h", "-r", "-o", "%i %T", "-j", ",".join(arrays)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError([f"squeue: Slurm does not answer ({error})"]) from error
    known = dict(line.split() for line in done.stdout.splitlines())
    return {
        job: "queued" if state in QUEUED else "running"
        for job, state in known.items()
        if job in jobs
    }


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
