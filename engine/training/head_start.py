"""Where a head of directions starts: at the mean feature of each class, or at its name."""

from __future__ import annotations

import torch
from torch import Tensor

import data
import models
from engine.config.choices import of
from engine.config.mistakes import mistakes_of
from engine.config.schema import Config
from engine.training.class_means import ClassSums
from engine.training.loaders import Loaders
from engine.training.runtime import preserved_randomness
from engine.training.train_loop import Trainer

BLOCK = 4096


def start_head(
    config: Config, dataset: data.LongTailed, *, trainer: Trainer, loaders: Loaders
) -> None:
    """Let the head start as it or ``model.head_init`` says, and the average of it too.

    Args:
        config: of the run.
        dataset: of the run.
        trainer: of the run, before its first step.
        loaders: of the run.

    Raises:
        ConfigError: the names of the classes cannot be embedded.
    """
    assert isinstance(trainer.model, models.Classifier)
    init = head_init(config)
    if init == "uniform":
        return
    if init == "class_mean":
        directions = class_means(
            loaders.plain_features(), dataset.train.targets, num_classes=dataset.num_classes
        )
    else:
        with mistakes_of(models.ModelError), preserved_randomness():
            directions = models.text_directions(
                dataset.class_names,
                encoder=config.model.text_encoder,
                model=config.model.text_model,
                prompt=config.model.text_prompt,
                num_features=trainer.model.get_parameter("head.weight").shape[1],
            )
    for model in (trainer.model, *([] if trainer.ema is None else [trainer.ema.module])):
        model.head.begin_at(directions)


def head_init(config: Config) -> str:
    """Return where the head starts: ``uniform``, ``class_mean`` or ``text``."""
    model = config.model
    known = of("model.head").fact(model.head, "begins_at")
    init: str = known or getattr(model, "head_init", "uniform")
    return init


def class_means(features: Tensor, targets: Tensor, *, num_classes: int) -> Tensor:
    """Return the mean feature (C, D) of each class; NaN for a class without images.

    Args:
        features: (N, D).
        targets: (N,).
        num_classes: C.
    """
    sums = ClassSums(num_classes)
    # The sums are in double precision: of a block at a time, the whole table is never copied.
    for block, labels in zip(features.split(BLOCK), targets.split(BLOCK), strict=True):
        sums.add(block, labels)
    return sums.means(empty=torch.nan)
