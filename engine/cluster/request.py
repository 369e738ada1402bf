"""What is asked of a cluster: a small YAML file, checked before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.config.mistakes import ConfigError, nearest
from engine.config.strict_yaml import read_yaml

EXAMPLE = "experiments/clusters/slurm.yaml"


class Request(BaseModel):
    """What every job of a command gets, and how many of them run side by side."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    cluster: Literal["slurm", "local"] = Field(
        "slurm", description="slurm, or local: processes of this machine, to try it out"
    )
    jobs: Annotated[int, Ge(1)] = Field(
        4, description="jobs side by side: seeds of train.py, else workers that share the runs"
    )
    minutes: Annotated[int, Ge(1)] = Field(
        60, description="time limit of a job; one that reaches it is queued again and resumes"
    )
    partition: str | None = Field(None, description="Slurm partition; null: the cluster's default")
    gpus: Annotated[int, Ge(0)] = Field(0, description="GPUs of a job")
    cpus: Annotated[int, Ge(1)] = Field(1, description="CPU cores of a job")
    memory_gb: Annotated[float, Ge(0.1)] | None = Field(
        None, description="memory of a job; null: the cluster's default"
    )
    setup: list[str] = Field([], description="shell lines before the command, as in module load")
    options: dict[str, str | int] = Field(
        {}, description="further options of sbatch, as in {account: vision, constraint: a100}"
    )
    folder: str = Field("runs/jobs", description="where the output of the jobs goes")


def read_request(path: Path) -> Request:
    """Read a file of what is asked of a cluster.

    Raises:
        ConfigError: with every mistake in the file, one line each.
    """
    try:
        request = Request.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError([f"{path}: {_sentence(e)}" for e in error.errors()]) from error
    if request.cluster == "local" and (idle := _idle_locally(request)):
        raise ConfigError([f"{path}: {', '.join(idle)}: no effect with cluster: local"])
    return request


def schema() -> str:
    """Return every key with its meaning and its default, one line each."""
    return "\n".join(
        f"  {key:<12}{info.description} (default {info.default!r})"
        for key, info in Request.model_fields.items()
    )


def _idle_locally(request: Request) -> list[str]:
    known = ("partition", "memory_gb", "options", "gpus", "cpus", "setup")
    usual = Request()
    return [key for key in known if getattr(request, key) != getattr(usual, key)]


def _sentence(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key{nearest(key, Request.model_fields)}"
    return f"{key}: {error['msg'].lower()}"
