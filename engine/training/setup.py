"""From a config to everything that one run needs, made once."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import data
from engine.config import derived
from engine.config.schema import Config
from engine.training import build, data_checks, named_runs, notes, trained
from engine.training.beginning import begin
from engine.training.checkpoint import Begun
from engine.training.checkpointer import Progress
from engine.training.compiling import EVALUATION, TRAINING, Compiler, Part
from engine.training.epoch_totals import EpochTotals
from engine.training.evaluation import Evaluator
from engine.training.head_start import start_head
from engine.training.loaders import Loaders, evaluation_batch
from engine.training.machine import Machine
from engine.training.parameter_groups import described
from engine.training.pieces import piece_sizes
from engine.training.processes import Processes
from engine.training.run_folder import RunFolder
from engine.training.runtime import derive_seed, device_name, keep_freed_memory
from engine.training.teacher import Teacher
from engine.training.train_loop import Trainer
from engine.training.weights_hash import former_hash

# What is recorded of the features of a backbone that leaves them as they are.
CACHED, COMPUTED = "cached", "computed"


@dataclass(frozen=True)
class Setup:
    """The objects of one run.

    Attributes:
        trainer: model, loss and optimizer.
        loader: batches of the training split, or of the features of its images.
        class_index: where the images of each class are, for the sampler.
        class_weights: (C,) float32 of ``reweight``, on the device; or None.
        evaluator: predicts a split with the weights of the moment.
        compiler: of the model, as training and evaluation call it.
        steps: optimizer steps an epoch.
        parameters: which of the model's are trained, in which groups.
        facts: what loading the run again needs to know about its data.
        former: the hashes of weights among them, as older runs recorded them.
        notes: what tables must say about how the model was trained and predictions were made.
        remarks: what a user should know before training, not only after it.
        config: of the run.
        dataset: of the run.
        held: which facts of the weights that it began with it needs no more, as it has begun.
    """

    trainer: Trainer
    loader: data.Loader | data.FeatureLoader
    class_index: data.ClassIndex
    class_weights: Tensor | None
    evaluator: Evaluator
    compiler: Compiler
    steps: int
    parameters: Mapping[str, Any]
    facts: Mapping[str, Any]
    former: Mapping[str, str | None]
    notes: tuple[str, ...]
    remarks: tuple[str, ...]
    config: Config
    dataset: data.LongTailed
    held: tuple[str, ...] = ()

    @property
    def features(self) -> str | None:
        """Whether features are cached or computed in every epoch; None where they change."""
        if derived.why_features_change(self.config):
            return None
        return CACHED if isinstance(self.loader, data.FeatureLoader) else COMPUTED

    def draw(self, epoch: int) -> Tensor:
        """Draw the positions (M,) of an epoch (0-based), in the order they are served."""
        return build.build_sampler(self.config, epoch=epoch).draw(
            self.class_index,
            seed=derive_seed(self.config.seed, "order"),
            epoch=epoch,
            progress=epoch / max(self.config.schedule.epochs - 1, 1),
            length=self.config.sampler.length,
        )

    def average(
        self, positions: Tensor, *, epoch: int, totals: EpochTotals, poll: Callable[[], None]
    ) -> None:
        """Take the weights after an epoch (0-based) into ``model.swa``'s mean, where it is on."""
        batches = self.loader.epoch(positions, epoch=epoch)
        self.trainer.average(batches, epoch=epoch, totals=totals, poll=poll)

    def histogram(self, positions: Tensor) -> list[int]:
        """Return how often each class was drawn, C numbers."""
        targets, num_classes = self.dataset.train.targets, self.dataset.num_classes
        return data.class_histogram(positions, targets, num_classes).tolist()

    def compile(self, progress: Progress, *, past: Collection[str] | None = None) -> Iterator[str]:
        """Compile the model where that is asked for or pays; yield what a user should know of it.

        Args:
            progress: where training is.
            past: what was compiled when the steps so far were made.
        """
        is_asked = self.config.runtime.compile is not False
        if not isinstance(self.loader, data.Loader):
            if is_asked:
                yield "runtime.compile: not compiled: the head alone is trained, on stored features"
            return
        if is_asked and self.trainer.swa is not None:
            yield (
                "runtime.compile: evaluation as it is: model.swa evaluates another model once its "
                "mean has begun"
            )
        epochs = self.config.schedule.epochs - progress.epoch
        for part in (self._training(self.loader, epochs=epochs), self._evaluation(epochs)):
            yield from self.compiler.compile(part, past=past if progress.has_begun else None)

    @property
    def _compiling_facts(self) -> str:
        way = f"{self.trainer.precision} on {device_name(self.trainer.device)}"
        return f"{way}, replayed" if self.trainer.keeps_gradients else way

    def _training(self, loader: data.Loader, *, epochs: int) -> Part:
        """Return the model as the steps of the epochs to come call it."""
        trainer = self.trainer
        sizes = loader.own_batch_sizes(self.config.sampler.length or len(self.dataset.train))
        pieces = [size for own in sizes for size in piece_sizes(own, trainer.accumulate)]
        shape = (pieces[0], *self.dataset.image_shape)
        return Part(
            name=TRAINING,
            model=trainer.shared_model,
            shape=shape,
            calls=epochs * pieces.count(pieces[0]) * (2 if trainer.sam else 1),
            rehearse=functools.partial(trainer.rehearse, shape=shape),
            use=functools.partial(setattr, trainer, "forward"),
            facts=self._compiling_facts,
        )

    def _evaluation(self, epochs: int) -> Part:
        """Return the model as validation and test call it."""
        trainer = self.trainer
        world = trainer.processes.world
        batch_size = evaluation_batch(self.config.optim, self.dataset, world=world)
        val, test = self.dataset.val, self.dataset.test
        each_epoch = [test] if self.config.evaluate.test_every_epoch else []
        splits = [split for split in (val, *each_epoch) if split is not None] * epochs + [test]
        shape = (batch_size, *self.dataset.test_shape)
        if trainer.swa is not None:
            splits = []  # what is evaluated becomes another model on the way
        return Part(
            name=EVALUATION,
            model=trainer.evaluated,
            shape=shape,
            calls=sum(-(-len(split) // world) // batch_size for split in splits),
            rehearse=functools.partial(self.evaluator.rehearse, shape=shape),
            use=functools.partial(setattr, self.evaluator, "forward"),
            facts=self._compiling_facts,
        )

    def close(self) -> None:
        """End the processes that prepare images."""
        self.loader.close()
        self.evaluator.close()


def load_dataset(config: Config, *, source: data.Source | None = None) -> data.LongTailed:
    """Load the data set, draw its splits, and check what only they can say about the config.

    One process of each machine loads it before the others, which then find its caches.

    Args:
        config: of the run.
        source: as for :func:`engine.training.build.build_dataset`.

    Raises:
        ConfigError: data are missing or do not allow what the config asks, or the teacher does not
            fit them.
    """
    taught = taught_names(config)  # a teacher that cannot be read is one line before any loading
    with Processes.current().local_main_first():
        dataset = build.build_dataset(config, taught=taught, source=source)
    check_dataset(config, dataset)
    return dataset


def check_dataset(config: Config, dataset: data.LongTailed) -> None:
    """Check what only the data can say about the config and its teacher.

    Raises:
        ConfigError: the data do not allow what the config asks, or the teacher does not fit them.
    """
    data_checks.check_config(config, dataset)
    if config.teacher is not None:
        facts = named_runs.teacher_facts(config.teacher)
        data_checks.check_teacher(config, dataset, facts)


class KeptDataset:
    """The data set of the last run, for the next ones that ask for the same one."""

    def __init__(self) -> None:
        self._asked: tuple[object, ...] | None = None
        self._dataset: data.LongTailed | None = None

    def of(self, config: Config) -> data.LongTailed:
        """Return the data set of ``config``, which is checked each time.

        Raises:
            ConfigError: as for :func:`load_dataset`.
        """
        section = config.data.model_dump_json()
        asked = (section, build.normalization(config), tuple(taught_names(config)))
        if self._dataset is None or asked != self._asked:
            self._dataset, self._asked = load_dataset(config), asked
        else:
            check_dataset(config, self._dataset)
        return self._dataset


def taught_names(config: Config) -> Sequence[str]:
    """Return the names of the classes that the teacher knows; none without a teacher."""
    if config.teacher is None:
        return ()
    return trained.known_names(named_runs.teacher_facts(config.teacher))


def set_up(
    config: Config, dataset: data.LongTailed, machine: Machine, begun: Begun | None = None
) -> Setup:
    """Make model, loss, optimizer, loaders and what evaluates them.

    A run that has begun needs what it started from for what its checkpoint leaves out alone.

    Args:
        config: of the run.
        dataset: of the run.
        machine: what it is trained on.
        begun: the weights of its checkpoint, where it has one.

    Raises:
        ConfigError: timm has no such model or optimizer, it cannot be built as asked, the loss does
            not fit the number of classes, or the weights of ``model.init_from`` do not fit.
    """
    if machine.device.type == "cpu":
        keep_freed_memory()
    beginning = begin(config, dataset, machine, begun)
    trainer, start = beginning.trainer, beginning.start
    class_weights = build.build_class_weights(config, dataset)
    loaders = Loaders(config, dataset, machine=machine, model=beginning.model)
    epoch_length = config.sampler.length or len(dataset.train)
    if begun is None and isinstance(config.model.init_from, tuple):
        _renew_statistics(trainer, loaders, num_images=len(dataset.train))
    loader = loaders.training(smallest_share=data_checks.smallest_share(beginning.model))
    data_checks.check_lone_images(
        config,
        beginning.model,
        dataset,
        smallest_batch=min(loader.batch_sizes(epoch_length)),
        processes=machine.processes.world,
    )
    if begun is None:
        start_head(config, dataset, trainer=trainer, loaders=loaders)
    steps = loader.num_batches(epoch_length)
    parameters = described(beginning.model, build.build_groups(config, beginning.model))
    light_notes = notes.light_notes(config, parameters)
    return Setup(
        trainer=trainer,
        loader=loader,
        class_index=data.ClassIndex.from_targets(
            dataset.train.targets, num_classes=dataset.num_classes
        ),
        class_weights=None if class_weights is None else class_weights.to(machine.device),
        evaluator=_evaluator(config, dataset, trainer=trainer, loaders=loaders),
        compiler=Compiler(
            config.runtime.compile, device=machine.device, processes=machine.processes
        ),
        steps=steps,
        parameters=parameters,
        facts=beginning.facts(config, dataset),
        former={
            "teacher_weights": _former(trainer.teacher),
            "start_weights": None if start is None else start.former_identity,
        },
        notes=(*notes.notes(config), *light_notes),
        remarks=(
            *notes.opening_notes(config, dataset, num_steps=config.schedule.epochs * steps),
            *light_notes,
            *notes.listed_weights(config, dataset, class_weights),
            *notes.listed_loss_values(config, dataset),
            *([] if start is None else [start.sentence]),
            *beginning.model.remarks,
            *loaders.remarks,
        ),
        config=config,
        dataset=dataset,
        held=_held(begun),
    )


def _renew_statistics(trainer: Trainer, loaders: Loaders, *, num_images: int) -> None:
    """Give a mean of several runs' weights, which has none, its batch-normalisation statistics."""
    with contextlib.closing(loaders.renewing()) as images:
        batches = images.epoch(torch.arange(num_images), epoch=0)
        trainer.renew_statistics(
            trainer.model, (batch.images for batch in batches), with_frozen=True
        )


def _evaluator(
    config: Config, dataset: data.LongTailed, *, trainer: Trainer, loaders: Loaders
) -> Evaluator:
    """Return what predicts the splits of a run with the weights of the moment."""
    readout = build.build_readout(
        config,
        trainer.loss,
        class_counts=torch.from_numpy(dataset.class_counts),
        classes=dataset.classes.predicted,
    )
    return Evaluator(
        trainer,
        loaders.splits,
        make_loader=loaders.evaluating,
        readout=readout,
        class_counts=dataset.class_counts,
        whole_counts=dataset.whole_counts,
        old_classes=dataset.classes.old,
        limits=build.group_limits(config),
        scratch=RunFolder.of(config).predictions,
    )


def _former(teacher: Teacher | None) -> str | None:
    return None if teacher is None else former_hash(teacher.model.state_dict())


def _held(begun: Begun | None) -> tuple[str, ...]:
    """Return the facts of the weights that a run began with which its checkpoint makes up for."""
    if begun is None:
        return ()
    return ("pretrained_file", "text_file") if begun.is_whole else ("text_file",)
