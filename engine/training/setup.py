"""From a config to everything that one run needs, made once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import data
import models
from engine.config.schema import Config
from engine.training import build, data_checks, named_runs, notes, trained
from engine.training.evaluation import Evaluator
from engine.training.machine import Machine
from engine.training.parameter_groups import described
from engine.training.processes import Processes
from engine.training.runtime import derive_seed
from engine.training.start_weights import start_weights
from engine.training.train_loop import Trainer

EVALUATED_PIXELS = 2**16  # at once: 1,024 images of 8x8, and 64 of 32x32


@dataclass(frozen=True)
class Setup:
    """The objects of one run.

    Attributes:
        trainer: model, loss and optimizer.
        loader: batches of the training split.
        class_index: where the images of each class are, for the sampler.
        class_weights: (C,) float32 of ``reweight``, on the device; or None.
        evaluator: predicts a split with the weights of the moment.
        steps: optimizer steps an epoch.
        parameters: which of the model's are trained, in which groups.
        facts: what loading the run again needs to know about its data.
        notes: what tables must say about how the model was trained and predictions were made.
        remarks: what a user should know before training, not only after it.
        config: of the run.
        dataset: of the run.
    """

    trainer: Trainer
    loader: data.Loader
    class_index: data.ClassIndex
    class_weights: Tensor | None
    evaluator: Evaluator
    steps: int
    parameters: Mapping[str, Any]
    facts: Mapping[str, Any]
    notes: tuple[str, ...]
    remarks: tuple[str, ...]
    config: Config
    dataset: data.LongTailed

    def draw(self, epoch: int) -> Tensor:
        """Draw the positions (M,) of an epoch (0-based), in the order they are served."""
        return build.build_sampler(self.config, epoch=epoch).draw(
            self.class_index,
            seed=derive_seed(self.config.seed, "order"),
            epoch=epoch,
            progress=epoch / max(self.config.schedule.epochs - 1, 1),
            length=self.config.sampler.length,
        )

    def histogram(self, positions: Tensor) -> list[int]:
        """Return how often each class was drawn, C numbers."""
        targets, num_classes = self.dataset.train.targets, self.dataset.num_classes
        return data.class_histogram(positions, targets, num_classes).tolist()

    def close(self) -> None:
        """End the processes that prepare images."""
        self.loader.close()
        self.evaluator.close()


def load_dataset(config: Config) -> data.LongTailed:
    """Load the data set, draw its splits, and check what only they can say about the config.

    One process of each machine loads it before the others, which then find its caches.

    Raises:
        ConfigError: data are missing or do not allow what the config asks, or the teacher does not
            fit them.
    """
    facts = None if config.teacher is None else named_runs.teacher_facts(config.teacher)
    with Processes.current().local_main_first():
        dataset = build.build_dataset(
            config, taught=() if facts is None else trained.known_names(facts)
        )
    data_checks.check_config(config, dataset)
    if facts is not None:
        data_checks.check_teacher(config, dataset, facts)
    return dataset


def evaluation_batch(batch_size: int, dataset: data.LongTailed) -> int:
    """Return how many images are evaluated at once: more than in training where these are tiny.

    A pass over digits then takes half its time; the logits are the same.

    Args:
        batch_size: images of a training batch, which fit together with their gradients.
        dataset: has the sizes of images.
    """
    shapes = (dataset.image_shape, dataset.test_shape)
    return max(batch_size, EVALUATED_PIXELS // max(shape[1] * shape[2] for shape in shapes))


def set_up(config: Config, dataset: data.LongTailed, machine: Machine) -> Setup:
    """Make model, loss, optimizer, loaders and what evaluates them.

    Raises:
        ConfigError: timm has no such model or optimizer, it cannot be built as asked, the loss does
            not fit the number of classes, or the weights of ``model.init_from`` do not fit.
    """
    start = start_weights(config, dataset)
    trainer = build.build_trainer(
        config,
        dataset,
        device=machine.device,
        start=None if start is None else start.state,
        teacher=None if config.teacher is None else trained.load_teacher(config.teacher),
    )
    assert isinstance(trainer.model, models.Classifier)
    class_weights = build.build_class_weights(config, dataset)
    make_loader = functools.partial(
        data.Loader,
        batch_size=config.optim.batch_size,
        mean=dataset.mean,
        std=dataset.std,
        device=machine.device,
        seed=derive_seed(config.seed, "loader"),
        interpolation=getattr(config.data, "interpolation", "bilinear"),
        workers=config.runtime.workers,
    )
    loader = make_loader(
        dataset.train,
        augment=build.augmentation(config),
        rank=machine.processes.rank,
        world=machine.processes.world,
        smallest_share=data_checks.smallest_share(trainer.model),
    )
    epoch_length = config.sampler.length or len(dataset.train)
    data_checks.check_lone_images(
        config,
        trainer.model,
        dataset,
        smallest_batch=min(loader.batch_sizes(epoch_length)),
        processes=machine.processes.world,
    )
    steps = loader.num_batches(epoch_length)
    parameters = described(trainer.model, build.build_groups(config, trainer.model))
    held_out = {"val": dataset.val, "test": dataset.test}
    readout = build.build_readout(
        config,
        trainer.loss,
        class_counts=torch.from_numpy(dataset.class_counts),
        classes=dataset.classes.predicted,
    )
    return Setup(
        trainer=trainer,
        loader=loader,
        class_index=data.ClassIndex.from_targets(
            dataset.train.targets, num_classes=dataset.num_classes
        ),
        class_weights=None if class_weights is None else class_weights.to(machine.device),
        evaluator=Evaluator(
            trainer,
            {name: split for name, split in held_out.items() if split is not None},
            make_loader=functools.partial(
                make_loader, batch_size=evaluation_batch(config.optim.batch_size, dataset)
            ),
            readout=readout,
            class_counts=dataset.class_counts,
            whole_counts=dataset.whole_counts,
            old_classes=dataset.classes.old,
            limits=build.group_limits(config),
        ),
        steps=steps,
        parameters=parameters,
        facts=trained.facts_of(
            config,
            dataset,
            teacher=trainer.teacher,
            start=None if start is None else start.identity,
        ),
        notes=(*notes.notes(config), *notes.light_notes(config, parameters)),
        remarks=(
            *notes.opening_notes(config, dataset, num_steps=config.schedule.epochs * steps),
            *notes.light_notes(config, parameters),
            *notes.listed_weights(config, dataset, class_weights),
            *([] if start is None else [start.sentence]),
            *trainer.model.remarks,
        ),
        config=config,
        dataset=dataset,
    )
