"""A search file: what is searched, by which metric, for how long, and how the answer is checked.

Read and checked without importing torch or Optuna, so that a typo is answered at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from engine.config import ConfigError, nearest, read_yaml
from engine.schema import SELECTABLE
from engine.wording import allowed, shown

Scalar = bool | int | float | str | None
Direction = Literal["maximize", "minimize"]
DIRECTIONS: dict[str, Direction] = {"max": "maximize", "min": "minimize"}


class _Node(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Budget(_Node):
    """How much is spent."""

    trials: Annotated[int, Ge(1)] | None = Field(
        None, description="parameter sets to end; null with sampler=grid: the whole grid"
    )
    timeout: Annotated[float, Gt(0)] | None = Field(
        None, description="seconds after which no trial begins any more"
    )
    epochs: Annotated[int, Ge(1)] | None = Field(
        None, description="schedule.epochs of every trial; null: as in the config"
    )


class Sampler(_Node):
    """Who proposes the next parameter set."""

    name: Literal["tpe", "gp", "random", "grid"] = Field("tpe", description="Optuna's sampler")
    seed: Annotated[int, Ge(0), Lt(2**32)] = Field(0, description="seed of its proposals")


class Pruner(_Node):
    """Who stops a trial that is behind."""

    name: Literal["none", "median", "hyperband", "wilcoxon"] = Field(
        "none", description="Optuna's pruner; wilcoxon compares trials seed by seed"
    )
    warmup: Annotated[float, Ge(0), Lt(1)] = Field(
        0.25,
        description="median, hyperband: fraction of training in which nothing is pruned; more "
        "where a deferred loss, sampler or weighting begins later",
    )


class Confirm(_Node):
    """The stage that trains the best settings again, on fresh seeds, and only then looks at test."""

    top: Annotated[int, Ge(0)] = Field(3, description="settings confirmed beside the default")
    seeds: Annotated[int, Ge(1)] = Field(5, description="fresh seeds each is trained with")


class Range(_Node):
    """A number between two ends, both included."""

    kind: Literal["float", "int"]
    low: float
    high: float
    log: bool = False
    step: Annotated[float, Gt(0)] | None = None
    where: dict[str, tuple[Scalar, ...]] = {}

    @property
    def ends(self) -> tuple[float | int, float | int]:
        """The smallest and the largest value that the key can get."""
        number = int if self.kind == "int" else float
        return number(self.low), number(self.high)


class Choice(_Node):
    """One of several plain values."""

    kind: Literal["choice"] = "choice"
    values: Annotated[tuple[Scalar, ...], MinLen(1)]
    where: dict[str, tuple[Scalar, ...]] = {}


Axis = Range | Choice


class SearchFile(_Node):
    """The contents of a search file.

    Attributes:
        metrics: validation metrics; the first chooses the epoch (``evaluate.metric``).
        fixed: config keys of every trial, from ``set``.
        space: dotted key -> what it can be; a key with ``where`` exists only in the trials where
            the keys named there have one of the values given.
        enqueue: parameter sets that are tried first.
        seeds: seeds that a trial is trained with; its value is their mean.
    """

    metrics: tuple[str, ...]
    budget: Budget = Budget()
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    fixed: dict[str, Any] = {}
    space: dict[str, Axis]
    enqueue: tuple[dict[str, Scalar], ...] = ()
    seeds: Annotated[int, Ge(1), Le(100)] = 1
    confirm: Confirm = Confirm()

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Of each metric: whether more or less is better."""
        return tuple(DIRECTIONS[SELECTABLE[m.removeprefix("val/")]] for m in self.metrics)
