"""A search file: what is searched, by which metric, for how long, and how the answer is checked."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel, ConfigDict, Field

from engine.config.metrics import selectable

Scalar = bool | int | float | str | None
Direction = Literal["maximize", "minimize"]
DIRECTIONS: dict[str, Direction] = {"max": "maximize", "min": "minimize"}


class Node(BaseModel):
    """A node of a search file: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Budget(Node):
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


class Sampler(Node):
    """Who proposes the next parameter set."""

    name: Literal["tpe", "gp", "random", "grid"] = Field(
        "tpe", description="Optuna's sampler; grid tries every combination, in random order"
    )
    seed: Annotated[int, Ge(0), Lt(2**32)] = Field(0, description="seed of what is proposed")


class Pruner(Node):
    """Who stops a trial that is behind the others."""

    name: Literal["none", "median", "hyperband", "wilcoxon"] = Field(
        "none", description="Optuna's pruner; wilcoxon compares trials seed by seed"
    )
    warmup: Annotated[float, Ge(0), Lt(1)] = Field(
        0.25,
        description="median and hyperband: fraction of training in which nothing is pruned; it is "
        "longer where a deferred loss, sampler or weighting begins later",
    )


class Confirm(Node):
    """The stage that trains the best settings again, on fresh seeds, and only then sees test."""

    top: Annotated[int, Ge(0)] = Field(3, description="settings confirmed beside the default")
    seeds: Annotated[int, Ge(1)] = Field(5, description="fresh seeds each is trained with")


class Range(Node):
    """A number between two ends, both included; on a log scale, or in steps from the lower end."""

    kind: Literal["float", "int"]
    low: float | int
    high: float | int
    log: bool = False
    step: Annotated[float | int, Gt(0)] | None = None
    where: dict[str, tuple[Scalar, ...]] = {}


class Choice(Node):
    """One of several values; a list is held as text, for Optuna keeps plain values only."""

    kind: Literal["choice"] = "choice"
    values: Annotated[tuple[Scalar, ...], MinLen(1)]
    where: dict[str, tuple[Scalar, ...]] = {}

    @staticmethod
    def value_of(value: Any) -> Any:
        """Return what the config takes: the inverse of :func:`spelled`.

        >>> Choice.value_of("[0.5, 0.8]"), Choice.value_of("ldam")
        ([0.5, 0.8], 'ldam')
        """
        is_list = isinstance(value, str) and value.startswith("[")
        return json.loads(value) if is_list else value


Axis = Range | Choice


class SearchFile(Node):
    """The contents of a search file.

    Attributes:
        metrics: validation metrics; the first chooses the epoch (``evaluate.metric``).
        fixed: config keys of every trial, from ``set``.
        space: dotted key -> what it can be; a key with ``where`` exists only in the trials where
            the keys named there have one of the values given.
        enqueue: parameter sets that are tried first.
        seeds: seeds that a trial is trained with; its value is their mean.
    """

    metrics: Annotated[tuple[str, ...], MinLen(1)]
    budget: Budget = Budget()
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    fixed: dict[str, Any] = {}
    space: Annotated[dict[str, Axis], MinLen(1)]
    enqueue: tuple[dict[str, Scalar], ...] = ()
    seeds: Annotated[int, Ge(1), Le(100)] = Field(
        1, description="seeds that a trial is trained with; its value is their mean"
    )
    confirm: Confirm = Confirm()

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Of each metric: whether more or less is better."""
        return tuple(DIRECTIONS[selectable()[m.removeprefix("val/")].better] for m in self.metrics)


def spelled(value: Any) -> Any:
    """Return a value as a search holds it: lists as text, everything else as it is.

    >>> spelled([0.5, 0.8]), spelled("ldam")
    ('[0.5, 0.8]', 'ldam')
    """
    return json.dumps(list(value)) if isinstance(value, list | tuple) else value
