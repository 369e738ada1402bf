"""``--submit FILE``: the same command as jobs of a cluster, each of which does its share of it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.cluster.job import Job
from engine.cluster.request import Request, read_request
from engine.config.mistakes import ConfigError

SUBMITTED = "submitted.jsonl"
# Options that mean something only while somebody looks on, and why.
BY_HAND = {
    "--fresh": "a job that is queued again would begin the run again",
    "--list": "it prints, and runs nothing",
    "--join": "the jobs join by themselves",
}
# A job that reaches its time limit is queued again as often as it takes.
MOST_TIMEOUTS = 1000


def submit(
    path: Path,
    script: str,
    argv: Sequence[str],
    *,
    seeds: Iterable[int] = (),
    joining: Sequence[str] | None = None,
) -> int:
    """Send a command to the cluster that a file describes, and say how to follow it.

    Args:
        path: the file of ``--submit``.
        script: such as ``train.py``.
        argv: the words after it, with ``--submit`` or without.
        seeds: a job each; without seeds every job gets the same words and takes its share.
        joining: the words of all jobs but the first, where these are others.

    Returns:
        The exit code.

    Raises:
        ConfigError: a mistake in the file, no submitit, no cluster here, or one that refuses jobs.
    """
    request = read_request(path)
    words = [script, *without_option(argv, "--submit")]
    _check(request, words)
    if seeds:
        words = [w for w in without_option(words, "--seeds") if not w.startswith("seed=")]
        commands = [[*words, f"seed={seed}"] for seed in seeds]
    else:
        others = words if joining is None else [script, *joining]
        commands = [words, *[others] * (request.jobs - 1)]
    folder = Path(request.folder).expanduser().resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([f"{path}: folder: {folder}: {error.strerror}"]) from error
    ids = _send(request, commands, folder, name=Path(script).stem)
    line = {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "cluster": request.cluster,
        "jobs": ids,
        # The address of a study may hold a password.
        "command": " ".join(word for word in words if not word.startswith("storage=")),
    }
    with (folder / SUBMITTED).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{len(ids)} job(s): {', '.join(ids)}; their output is in {folder}")
    print(f"python -m engine.cluster {request.folder}   shows what is queued, running and done")
    print("the same command without --submit prints the results once they are done")
    return 0


def without_option(words: Sequence[str], option: str) -> list[str]:
    """Return the words without an option and its value."""
    left, skipped = [], False
    for word in words:
        if skipped:
            skipped = False
        elif word == option:
            skipped = True
        elif not word.startswith(f"{option}="):
            left.append(word)
    return left


def _check(request: Request, words: Sequence[str]) -> None:
    for option, why in BY_HAND.items():
        if option in words:
            raise ConfigError([f"{option}: cannot go with --submit: {why}"])
    if words[0] == "sweep.py" and request.jobs > 1 and "--workers" in words:
        raise ConfigError(
            [
                f"--workers: cannot go with --submit and jobs: {request.jobs}, each of which is "
                "one worker; ask for more jobs, or for jobs: 1"
            ]
        )
    if words[0] == "sweep.py" and request.jobs > 1 and not _has_server(words):
        raise ConfigError(
            [
                "--submit: several jobs need a study that nodes can share: add "
                "storage=postgresql://USER@HOST/DATABASE, or ask for jobs: 1"
            ]
        )
    if importlib.util.find_spec("submitit") is None:
        raise ConfigError(
            [
                "--submit: needs the package submitit, which is not installed; "
                "pip install -r requirements-cluster.txt -c constraints.txt"
            ]
        )
    if request.cluster == "slurm" and shutil.which("sbatch") is None:
        raise ConfigError(
            ["--submit: no Slurm here (sbatch is not found); cluster: local runs on this machine"]
        )


def _has_server(words: Sequence[str]) -> bool:
    urls = [word.partition("=")[2] for word in words if word.startswith("storage=")]
    url = urls[-1] if urls else os.environ.get("SWEEP_STORAGE", "")
    return bool(url) and not url.startswith("sqlite")


def _send(request: Request, commands: list[list[str]], folder: Path, *, name: str) -> list[str]:
    import submitit

    executor = submitit.AutoExecutor(
        folder=folder, cluster=request.cluster, slurm_max_num_timeout=MOST_TIMEOUTS
    )
    executor.update_parameters(**_parameters(request, name))
    if request.cluster == "slurm":
        shares = [[command] for command in commands]
    else:  # which has no queue: as many processes as jobs, and each has several to do
        shares = [commands[first :: request.jobs] for first in range(request.jobs)]
    with _refusal_in_a_line(), executor.batch():
        jobs = [executor.submit(Job(share, folder)) for share in shares if share]
    return [job.job_id for job in jobs]


@contextlib.contextmanager
def _refusal_in_a_line() -> Iterator[None]:
    """Raise as one line what sbatch says, which submitit prints and raises."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except (FailedJobError, FailedSubmissionError) as error:
        lines = [line.removeprefix("sbatch: error: ") for line in str(error).splitlines()]
        raise ConfigError([f"--submit: Slurm takes no job: {'; '.join(lines)}"]) from error


def _parameters(request: Request, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": f"tailfocus-{name}", "timeout_min": request.minutes}
    if request.cluster == "slurm":
        found |= {
            "cpus_per_task": request.cpus,
            "slurm_array_parallelism": request.jobs,
            "slurm_setup": request.setup,
            "slurm_additional_parameters": {"requeue": True, **request.options},
        }
        if request.gpus:
            found["gpus_per_node"] = request.gpus
        if request.partition is not None:
            found["slurm_partition"] = request.partition
        if request.memory_gb is not None:
            found["slurm_mem"] = f"{round(request.memory_gb * 1024)}M"
    return found
