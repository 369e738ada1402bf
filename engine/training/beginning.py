"""The weights that a run begins with: random ones, another run's, a file's, or its checkpoint's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import data
import models
from engine.config.schema import Config
from engine.training import build, trained
from engine.training.base_weights import base_of
from engine.training.checkpoint import Begun
from engine.training.machine import Machine
from engine.training.start_weights import StartWeights, start_weights
from engine.training.train_loop import Trainer


@dataclass(frozen=True)
class Beginning:
    """A trainer with the weights that training begins or goes on with.

    Attributes:
        trainer: of the run.
        start: the weights that it begins with, unless they are random or those of a checkpoint.
        is_whole: whether a checkpoint holds all of them.
    """

    trainer: Trainer
    start: StartWeights | None
    is_whole: bool

    @property
    def model(self) -> models.Classifier:
        """The model as it was built, before anything wraps it."""
        assert isinstance(self.trainer.model, models.Classifier)
        return self.trainer.model

    def facts(self, config: Config, dataset: data.LongTailed) -> dict[str, Any]:
        """Return what loading the run again needs to know about its data."""
        facts = trained.facts_of(
            config,
            dataset,
            teacher=self.trainer.teacher,
            start=None if self.start is None else self.start.identity,
        )
        if self.is_whole:  # the runs that it started from were not looked at
            del facts["start_weights"]
        return facts


def begin(
    config: Config, dataset: data.LongTailed, machine: Machine, begun: Begun | None
) -> Beginning:
    """Build the trainer; of a run that has begun, with the weights of its checkpoint.

    Args:
        config: of the run.
        dataset: of the run.
        machine: what it is trained on.
        begun: the weights of its checkpoint, where it has one; it then needs what it started from
            only for what the checkpoint leaves out.

    Raises:
        ConfigError: see :func:`engine.training.setup.set_up`.
    """
    is_whole = begun is not None and begun.is_whole
    start = None if is_whole else start_weights(config, dataset)
    trainer = build.build_trainer(
        _from_random(config) if is_whole else config,
        dataset,
        device=machine.device,
        start=None if start is None else start.state,
        teacher=None if config.teacher is None else trained.load_teacher(config.teacher),
    )
    beginning = Beginning(trainer, start, is_whole)
    if begun is not None and is_whole:
        beginning.model.load_state_dict(begun.state)
    else:
        named = None if start is None else start.trained
        trainer.base = base_of(config, beginning.model, named=named)
    return beginning


def _from_random(config: Config) -> Config:
    """Return a config of the same model, which starts from random weights."""
    model = config.model.model_copy(update={"pretrained": False, "init_from": None})
    return config.model_copy(update={"model": model})
