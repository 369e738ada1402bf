"""From a config to the objects of a run: data, model, loss, trainer; and back from a run folder."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

import data
import losses
import models
from engine.config import components, rules
from engine.config.load import load_run_config
from engine.config.mistakes import ConfigError
from engine.config.schema import Config, component_keys
from engine.training import checkpoint
from engine.training.optim import build_optimizer, rate_factor
from engine.training.probabilities import PredictsProbabilities, Readout, adjustment
from engine.training.processes import Processes
from engine.training.runtime import Precision, choose_precision, derive_seed, preserved_randomness
from engine.training.train_loop import Trainer

Rule = Literal["last", "val"]


@contextlib.contextmanager
def mistakes_of(*kinds: type[Exception]) -> Iterator[None]:
    """Turn a package's own error into a :class:`ConfigError`: one line, exit code 2."""
    try:
        yield
    except kinds as error:
        raise ConfigError([str(error)]) from error


def build_dataset(config: Config) -> data.LongTailed:
    """Load the data set and draw its splits.

    Raises:
        ConfigError: data are missing or do not allow what the config asks.
    """
    section = config.data
    with mistakes_of(data.DataError):
        source = components.build(
            "data", section.name, component_keys(section), root=data.data_root()
        )
        facts = {} if config.teacher is None else _teacher_facts(config.teacher)
        dataset = data.build(
            source,
            imbalance=data.Imbalance(**section.imbalance.model_dump()),
            validation=data.Validation(**section.validation.model_dump()),
            one_vs_rest=section.one_vs_rest,
            classes=section.classes,
            test_classes=section.test_classes,
            taught=[facts["class_names"][label] for label in facts.get("known_classes", ())],
        )
    _check_against_data(config, dataset)
    if config.teacher is not None:
        _check_teacher(config, dataset, facts)
    return dataset


def build_model(config: Config, dataset: data.LongTailed) -> models.Classifier:
    """The classifier with its initial weights, a function of the seed alone.

    Raises:
        ConfigError: timm has no such model, or it cannot be built as asked.
    """
    facts = components.read("losses", config.loss.name).class_facts
    is_sigmoid = facts["activation"] == "sigmoid"
    with (
        mistakes_of(models.ModelError),
        preserved_randomness(derive_seed(config.seed, "model")),
    ):
        model = models.build(
            config.model.name,
            num_outputs=num_outputs(config, dataset.num_classes),
            in_channels=dataset.image_shape.channels,
            image_size=(dataset.image_shape.height, dataset.image_shape.width),
            head=config.model.head,
            norm=config.model.norm,
            pretrained=config.model.pretrained,
            freeze=config.model.freeze,
            prior=_prior(dataset) if is_sigmoid and config.model.head == "linear" else None,
        )
    if config.model.init_from is not None:
        _initialise(model, config.model.init_from, with_head=config.model.init_head)
    return model


def _prior(dataset: data.LongTailed) -> float:
    """Where sigmoid outputs start: 1/C each, or the share of positives for a single output.

    Else the many negatives swamp the first steps (Lin et al. 2017, section 4.1).
    """
    if dataset.num_classes == 2:
        return float(dataset.class_counts[1] / dataset.class_counts.sum())
    return 1 / dataset.num_classes


def build_loss(
    config: Config,
    class_counts: Tensor,
    *,
    taught: Sequence[int] = (),
    class_names: tuple[str, ...] = (),
) -> losses.Loss:
    """The loss of the config.

    Args:
        config: of the run.
        class_counts: (C,) training images of each class.
        taught: labels of the classes that the teacher knows.
        class_names: in label order, for the message about a list of the wrong length.

    Raises:
        ConfigError: its keys do not fit the number of classes.
    """
    try:
        return losses.build(
            config.loss.name,
            component_keys(config.loss),
            class_counts=class_counts,
            old_classes=taught or None,
        )
    except ValueError as error:
        lists = [v for v in component_keys(config.loss).values() if isinstance(v, tuple)]
        is_other_length = any(len(values) != len(class_counts) for values in lists)
        order = f" ({data.label_order(class_names)})" if class_names and is_other_length else ""
        raise ConfigError([f"loss={config.loss.name}: {error}{order}"]) from error


def build_readout(
    config: Config, loss: PredictsProbabilities, *, class_counts: Tensor, classes: Sequence[int]
) -> Readout:
    """From logits to probabilities of ``classes``, adjusted as ``evaluate`` says."""
    tau = config.evaluate.logit_adjustment
    return Readout(loss, classes, adjustment(class_counts, tau=tau))


def build_trainer(config: Config, dataset: data.LongTailed, *, device: torch.device) -> Trainer:
    """Model, loss, optimizer, schedule, mixing and averaging, joined.

    Raises:
        ConfigError: timm has no such model or optimizer, it cannot be built as asked, or several
            processes share a batch that the loss compares as a whole.
    """
    from timm.data import Mixup
    from timm.utils import ModelEmaV3

    world = Processes.current().world
    if world > 1 and not rules.is_mean_over_samples(config):
        raise ConfigError(
            [
                f"loss={config.loss.name}: compares a batch as a whole, and {world} processes see "
                "a part of it each: train in one process, or with another loss"
            ]
        )
    precision = choose_precision(config.runtime.precision, device)
    layout = weight_layout(device, precision=precision)
    model = build_model(config, dataset).to(device).to(memory_format=layout)
    optim, schedule, mixup = config.optim, config.schedule, config.mixup
    optimizer = build_optimizer(
        model.parameters(),
        name=optim.name,
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        momentum=optim.momentum,
    )

    def rate(epoch: int, step: int, steps: int) -> float:
        is_per_step = schedule.unit == "step"
        factor = rate_factor(
            epoch * steps + step if is_per_step else epoch,
            schedule.epochs * steps if is_per_step else schedule.epochs,
            name=schedule.name,
            warmup=schedule.warmup,
            steps=schedule.steps,
            decay=schedule.decay,
        )
        return optim.lr * factor

    mix = Mixup(
        mixup_alpha=mixup.mixup,
        cutmix_alpha=mixup.cutmix,
        label_smoothing=0.0,
        num_classes=dataset.num_classes,
    )
    trainer = Trainer(
        model,
        build_loss(
            config,
            torch.from_numpy(dataset.class_counts),
            taught=dataset.classes.taught,
            class_names=dataset.class_names,
        ).to(device),
        optimizer=optimizer,
        rate=rate,
        seed=config.seed,
        device=device,
        mix=mix if mixup.mixup or mixup.cutmix else None,
        ema=ModelEmaV3(model, decay=config.model.ema) if config.model.ema else None,
        accumulate=optim.accumulate,
        clip_norm=optim.clip_norm,
        precision=precision,
        compile_model=config.runtime.compile,
    )
    if config.teacher is not None:
        teacher = load_run(config.teacher).model.requires_grad_(False)
        trainer.teacher = teacher.to(device).to(memory_format=layout)
    return trainer


def weight_layout(device: torch.device, *, precision: Precision) -> torch.memory_format:
    """How to lay the weights out; a convolution hands the layout of its weights on to its output.

    Channels last is faster on CPUs, and on CUDA where tensor cores do the arithmetic.
    """
    if device.type == "cpu" or (device.type == "cuda" and precision != "float32"):
        return torch.channels_last
    return torch.contiguous_format


def build_class_weights(config: Config, dataset: data.LongTailed) -> Tensor | None:
    """Class weights (C,) float32 of ``reweight``, or None.

    Raises:
        ConfigError: there is not one explicit weight for each class.
    """
    try:
        weights = losses.class_weights(
            torch.from_numpy(dataset.class_counts),
            scheme=config.reweight.scheme,
            beta=config.reweight.beta,
            power=config.reweight.power,
            weights=config.reweight.weights,
        )
    except ValueError as error:
        order = data.label_order(dataset.class_names)
        raise ConfigError([f"reweight.weights: {error} ({order})"]) from error
    return None if weights is None else weights.float()


def num_outputs(config: Config, num_classes: int) -> int:
    """Logits of the model: one for a binary task with a sigmoid loss, else one a class."""
    loss = components.read("losses", config.loss.name)
    is_binary = num_classes == 2 and loss.class_facts["activation"] == "sigmoid"
    return 1 if is_binary else num_classes


def notes(config: Config) -> tuple[str, ...]:
    """What tables must say about how the model was trained and predictions were made."""
    loss, found = config.loss.name, []
    if rules.fitted_prior(config) == "uniform":
        found += [
            f"balanced twice: {loss} fits a uniform prior by itself, {choice} balances training too"
            for choice in rules.balancing(config)
        ]
    if rules.leaves_cosines_unscaled(config):
        found.append(
            f"logits are cosines, -1 to 1, which {loss} does not scale: no prediction is sure "
            "(model.head=cosine)"
        )
    if (tau := config.evaluate.logit_adjustment) != 0:
        share = "log(share of training images)"
        found.append(f"predictions use logits - {tau:g} {share} (evaluate.logit_adjustment)")
    return tuple(found)


def opening_notes(config: Config, dataset: data.LongTailed) -> tuple[str, ...]:
    """What a user should know before training, not only after it."""
    notes = dataset.source_notes
    if _is_idle_seed(config, dataset):
        notes += (_idle_seed(config, dataset),)
    counts = dataset.class_counts[list(dataset.classes.trained)]
    if config.reweight.scheme not in ("none", "explicit") and (counts == counts[0]).all():
        notes += (
            f"reweight.scheme={config.reweight.scheme} has no effect: every class has {counts[0]} "
            "training images, so that all weights are equal",
        )
    if config.data.augment.flip and components.read("data", config.data.name).class_facts.get(
        "may_have_sides"
    ):
        notes += (
            "every second training image is mirrored (data.augment.flip=true); set it to false "
            "where left and right matter, as for digits, signs and sides of a body",
        )
    return notes


def augmentation(config: Config) -> data.Augment:
    """The augmentation of ``data.augment``."""
    return data.Augment(**config.data.augment.model_dump())


# --- facts that only the data can know ----------------------------------------------------------


def _is_idle_seed(config: Config, dataset: data.LongTailed) -> bool:
    default = type(config.data.imbalance).model_fields["seed"].default
    return not dataset.is_drawn and config.data.imbalance.seed != default


def _idle_seed(config: Config, dataset: data.LongTailed) -> str:
    return (
        f"data.imbalance.seed={config.data.imbalance.seed}: has no effect, every training image "
        f"of {dataset.title} is used and none is held out"
    )


def _check_against_data(config: Config, dataset: data.LongTailed) -> None:
    """The rules of ``engine/config/rules.py`` that need the data, in the same form."""
    mistakes = []
    default_metric = type(config.evaluate).model_fields["metric"].default
    if dataset.val is None and config.evaluate.metric != default_metric:
        mistakes.append(
            "evaluate.metric: has no effect without a validation split; set "
            "data.validation.per_class or data.validation.fraction"
        )
    default_validation = type(config.data).model_validate({}).validation
    if dataset.val_is_own and config.data.validation != default_validation:
        mistakes.append(
            f"data.validation: has no effect, {dataset.title} has a validation split of its own"
        )
    # With kind=none nothing can be drawn; elsewhere a sequence of factors may well end at 1.
    if config.data.imbalance.kind == "none" and _is_idle_seed(config, dataset):
        mistakes.append(f"{_idle_seed(config, dataset)}; leave it out")
    lacking = [label for label in dataset.classes.predicted if dataset.class_counts[label] == 0]
    if config.evaluate.logit_adjustment and lacking:
        mistakes.append(
            f"evaluate.logit_adjustment={config.evaluate.logit_adjustment:g}: class "
            f"{dataset.class_names[lacking[0]]} can be predicted but has no training image here, "
            "and so no prior; set it to 0"
        )
    needs_workers = (
        isinstance(dataset.train.images, data.DiskImages) or augmentation(config).is_by_image
    )
    default_workers = type(config.runtime).model_fields["workers"].default
    if not needs_workers and config.runtime.workers != default_workers:
        mistakes.append(
            f"runtime.workers={config.runtime.workers}: has no effect, the images of "
            f"data={config.data.name} are in memory"
        )
    if mistakes:
        raise ConfigError(mistakes)


def check_lone_images(
    config: Config,
    model: nn.Module,
    dataset: data.LongTailed,
    *,
    smallest_batch: int,
    processes: int,
) -> None:
    """Refuse to train on one image at a time a model that cannot.

    Args:
        config: of the run.
        model: as it will be trained; it is left as it is.
        dataset: whose images it is shown.
        smallest_batch: images of the smallest batch of an epoch.
        processes: how many share it.

    Raises:
        ConfigError: batch normalisation would be left with one value a channel.
    """
    pieces = config.optim.accumulate
    if smallest_batch // processes > pieces:
        return
    device = next(model.parameters()).device
    image = torch.zeros(1, *dataset.image_shape, device=device)
    try:
        with preserved_randomness(), torch.no_grad():
            copy.deepcopy(model).train()(image)
    except ValueError as error:
        share = f"{smallest_batch} images for {processes} process(es) in {pieces} piece(s)"
        raise ConfigError(
            [
                f"optim.batch_size={config.optim.batch_size}: the smallest batch of an epoch has "
                f"{share}, one image at a time, and batch normalisation in {config.model.name} "
                "needs 2; raise it, lower optim.accumulate, or set model.norm=group"
            ]
        ) from error


def _teacher_facts(run: str) -> dict[str, Any]:
    """What the teacher's run folder says of its data.

    Raises:
        ConfigError: the run is not finished, so that its weights would change.
    """
    if not (Path(run).expanduser() / "summary.json").exists():
        raise ConfigError([f"teacher={run}: is not finished; its own command goes on with it"])
    return read_facts(run)


def _check_teacher(config: Config, dataset: data.LongTailed, facts: Mapping[str, Any]) -> None:
    """A teacher of other classes or images would teach nonsense, or from what is held out here."""
    run = f"teacher={config.teacher}"
    outputs = num_outputs(config, dataset.num_classes)
    mistakes = []
    if tuple(facts["class_names"]) != dataset.class_names:
        mistakes.append(f"{run}: was trained on other classes than those of {dataset.title}")
    elif facts["whole_fingerprint"] != dataset.whole_fingerprint:
        mistakes.append(
            f"{run}: was trained on another split ({facts['whole_fingerprint']}, here "
            f"{dataset.whole_fingerprint}); give both runs the same data keys, but for "
            "data.classes, data.test_classes and data.augment"
        )
    elif facts["num_outputs"] != outputs:
        mistakes.append(f"{run}: has {facts['num_outputs']} output, this model {outputs}")
    if mistakes:
        raise ConfigError(mistakes)


# --- weights of other runs ----------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """A state dict and the epoch (1-based) it was taken after."""

    epoch: int
    state: dict[str, Tensor]


def load_weights(run: str | Path, *, rule: Rule | None = None) -> Weights:
    """A run folder's weights by ``rule``; None takes ``val`` where the run has it, else ``last``.

    Raises:
        ConfigError: no whole checkpoint, or no weights by that rule.
    """
    folder = Path(run).expanduser() / "checkpoints"
    state, problems, _ = checkpoint.load_latest(folder)
    if state is None:
        raise ConfigError(problems or [f"{folder}: no checkpoint there"])
    best = state["best"]
    if rule == "val" and best is None:
        raise ConfigError([f"{run}: has no weights by rule val (no validation split)"])
    if rule != "last" and best is not None:
        return Weights(best["epoch"], best["state"])
    return Weights(state["epoch"], state["model"] if state["ema"] is None else state["ema"])


def _initialise(model: models.Classifier, run: str, *, with_head: bool) -> None:
    own = model.state_dict()
    given = load_weights(run).state
    wanted = [key for key in own if with_head or not key.startswith("head.")]
    wrong = [k for k in wanted if k not in given or given[k].shape != own[k].shape]
    if wrong:
        hint = "; model.init_head=false leaves the head out" if wrong[0].startswith("head.") else ""
        raise ConfigError([f"model.init_from={run}: {wrong[0]} does not fit this model{hint}"])
    model.load_state_dict({**own, **{key: given[key] for key in wanted}})


@dataclass(frozen=True)
class LoadedRun:
    """A trained classifier, as :func:`load_run` found it.

    Attributes:
        model: in eval mode, on the CPU; normalised images to ``(logits, features)``.
        class_names: in label order.
        config: of the run.
        epoch: after which these weights were taken.
    """

    model: models.Classifier
    class_names: tuple[str, ...]
    config: Config
    epoch: int
    readout: Readout
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities (N, C) float64 of uint8 images (N, channels, height, width)."""
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (self.mean, self.std))
        logits = self.model((images.float() / 255 - mean) / std).logits
        return self.readout.predict(logits.double())


def load_run(path: str | Path, *, rule: Rule | None = None) -> LoadedRun:
    """Load a run folder for inference.

    Args:
        path: the run folder.
        rule: whose weights: ``last`` or ``val``; None takes ``val`` where the run has it.

    Raises:
        ConfigError: no run folder, no whole checkpoint, or no weights by that rule.

    Three lines::

        run = load_run("runs/digits/0123456789ab")
        probabilities = run.predict(images)                       # uint8 (N, channels, H, W)
        names = [run.class_names[c] for c in probabilities.argmax(1)]
    """
    path = Path(path).expanduser()
    config = load_run_config(path, alone=True)
    weights = load_weights(path, rule=rule)
    facts = read_facts(path)
    class_counts = torch.tensor(facts["class_counts"])
    channels, *size = facts["image_shape"]
    with preserved_randomness():
        model = models.build(
            config.model.name,
            num_outputs=facts["num_outputs"],
            in_channels=channels,
            image_size=tuple(size),
            head=config.model.head,
            norm=config.model.norm,
        )
    model.load_state_dict(weights.state)
    return LoadedRun(
        model=model.eval(),
        class_names=tuple(facts["class_names"]),
        config=config,
        epoch=weights.epoch,
        readout=build_readout(
            config,
            build_loss(config, class_counts, taught=facts["taught_classes"]),
            class_counts=class_counts,
            classes=facts["predicted_classes"],
        ),
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
    )


def read_facts(run: str | Path) -> dict[str, Any]:
    """What :func:`facts_of` once said of a run folder's data; all classes where it said nothing.

    Raises:
        ConfigError: environment.json is missing or holds no facts.
    """
    path = Path(run).expanduser() / "environment.json"
    try:
        environment = json.loads(path.read_bytes())
        facts = dict(environment["facts"])
        every = list(range(len(facts["class_names"])))
        usual = {"known_classes": every, "taught_classes": [], "predicted_classes": every}
        return {**usual, "whole_fingerprint": environment["split_fingerprint"], **facts}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError([f"{path}: is missing or damaged; put it back"]) from error


def facts_of(
    config: Config, dataset: data.LongTailed, *, teacher: nn.Module | None = None
) -> dict[str, Any]:
    """What :func:`load_run` needs to know about the data without loading them, and the teacher."""
    return {
        "title": dataset.title,
        "class_names": list(dataset.class_names),
        "class_counts": dataset.class_counts.tolist(),
        "val_images": 0 if dataset.val is None else len(dataset.val),
        "test_images": len(dataset.test),
        "image_shape": list(dataset.image_shape),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "num_outputs": num_outputs(config, dataset.num_classes),
        "whole_fingerprint": dataset.whole_fingerprint,
        "known_classes": list(dataset.classes.known),
        "taught_classes": list(dataset.classes.taught),
        "predicted_classes": list(dataset.classes.predicted),
        "teacher_weights": None if teacher is None else weights_hash(teacher),
    }


def weights_hash(model: nn.Module) -> str:
    """12 hex digits over every weight and buffer."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + b"\0")
        digest.update(value.cpu().contiguous().numpy())
    return digest.hexdigest()[:12]
