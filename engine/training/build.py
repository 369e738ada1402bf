"""From a config to the objects of a run: data, model, loss, trainer."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import data
import losses
import models
from engine.config import choices, components, derived
from engine.config.calendar import start_epoch
from engine.config.mistakes import ConfigError, mistakes_of
from engine.config.schema import Config, chosen_keys, component_keys
from engine.training.averaging import EpochMean, average_of
from engine.training.class_values import loss_keys, weight_keys
from engine.training.metrics.groups import Limits
from engine.training.optim import build_optimizer
from engine.training.parameter_groups import ParameterGroup, parameter_groups
from engine.training.probabilities import PredictsProbabilities, Readout, adjustment
from engine.training.processes import Processes
from engine.training.rates import rate_of
from engine.training.runtime import Precision, choose_precision, derive_seed, preserved_randomness
from engine.training.teacher import Teacher
from engine.training.train_loop import StepOptions, Trainer


def data_source(config: Config) -> Any:
    """Return the reader of the data that a config names; its ``load()`` is yet to be called.

    Raises:
        data.DataError: the data are missing.
    """
    section = config.data
    # Two names of one folder: a data set may have a key of its own called root.
    raw_data = data.data_root()
    return components.build(
        "data", section.name, component_keys(section), root=raw_data, raw_data=raw_data
    )


def build_dataset(
    config: Config, *, taught: Sequence[str] = (), source: data.Source | None = None
) -> data.LongTailed:
    """Load the data set and draw its splits.

    Args:
        config: of the run.
        taught: names of the classes that the teacher knows.
        source: the reader of the data; None for the one that the config names.

    Raises:
        ConfigError: data are missing or do not allow what the config asks.
    """
    section = config.data
    with mistakes_of(data.DataError):
        source = data_source(config) if source is None else source
        return data.build(
            source,
            normalization=normalization(config),
            imbalance=data.Imbalance(**section.imbalance.model_dump()),
            validation=data.Validation(**section.validation.model_dump()),
            one_vs_rest=section.one_vs_rest,
            classes=section.classes,
            test_classes=section.test_classes,
            taught=taught,
            near_duplicates=section.near_duplicates,
            drop_duplicates=section.drop_duplicates,
        )


def normalization(config: Config) -> models.Normalization | None:
    """Return the means and deviations of ``data.normalize=weights``; None where others are asked.

    Raises:
        ConfigError: the model's weights have none.
    """
    if getattr(config.data, "normalize", None) != "weights":
        return None
    with mistakes_of(models.ModelError):
        return models.normalization(config.model.name)


def build_model(
    config: Config, dataset: data.LongTailed, *, start: Mapping[str, Tensor] | None = None
) -> models.Classifier:
    """Return the classifier with its initial weights, a function of the seed and ``start`` alone.

    Args:
        config: of the run.
        dataset: says how many outputs and channels there are.
        start: weights of the run that ``model.init_from`` names.

    Raises:
        ConfigError: timm has no such model, it cannot be built as asked, or ``start`` does not fit.
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
            image_size=dataset.image_shape[1:],
            test_size=dataset.test_shape[1:],
            pretrained=config.model.pretrained,
            freeze=config.model.freeze,
            prior=_prior(dataset) if is_sigmoid else None,
            **architecture(config),
        )
    if start is not None:
        _start_from(start, model, config)
    return model


def architecture(config: Config) -> dict[str, Any]:
    """Return what :func:`models.build` needs to build the same network again."""
    keys = chosen_keys(config, "model.head")
    tune = config.model.tune
    tuning = None
    if tune != choices.of("model.tune").default:
        tuning = components.build("models.tuning", tune, chosen_keys(config, "model.tune"))
    return {
        "head": functools.partial(components.build, "models.heads", config.model.head, keys),
        "tuning": tuning,
        "norm": config.model.norm,
        "kwargs": {
            **({"drop_rate": config.model.drop} if config.model.drop else {}),
            **({"drop_path_rate": config.model.drop_path} if config.model.drop_path else {}),
            **config.model.kwargs,
        },
    }


def build_groups(config: Config, model: models.Classifier) -> list[ParameterGroup]:
    """Return the parameters that are trained, in the groups that ``optim`` asks for.

    Raises:
        ConfigError: the model has no layers by which its rates could differ.
    """
    optim = config.optim
    return parameter_groups(
        model,
        name=config.model.name,
        weight_decay=optim.weight_decay,
        decay_on=optim.decay_on,
        layer_decay=optim.layer_decay,
        head_lr=optim.head_lr,
    )


def _start_from(start: Mapping[str, Tensor], model: models.Classifier, config: Config) -> None:
    own = model.state_dict()
    wanted = [key for key in own if config.model.init_head or not key.startswith("head.")]
    # What a head adds to the one that it goes on from starts anew, unless that one has it too.
    added = {f"head.{name}" for name in getattr(model.head, "starts_anew", ())}
    wanted = [key for key in wanted if key in start or key not in added]
    # What a way of tuning adds starts anew, unless the other run was tuned in the same way.
    if not any(models.is_added(key) for key in start):
        wanted = [key for key in wanted if not models.is_added(key)]
    wrong = [k for k in wanted if k not in start or start[k].shape != own[k].shape]
    if wrong:
        hint = "; model.init_head=false leaves the head out" if wrong[0].startswith("head.") else ""
        raise ConfigError(
            [f"model.init_from={config.model.init_from}: {wrong[0]} does not fit this model{hint}"]
        )
    if config.model.init_head:
        _check_head_is_whole(start, model, config)
    model.load_state_dict({**own, **{key: start[key] for key in wanted}})


def _check_head_is_whole(
    start: Mapping[str, Tensor], model: models.Classifier, config: Config
) -> None:
    """Refuse a head with more than this one has a place for: without it, it is another function."""
    placed = {f"head.{name}" for name in getattr(model.head, "leaves_out", ())}
    placed |= model.state_dict().keys()
    extra = [key for key in start if key.startswith("head.") and key not in placed]
    if extra:
        raise ConfigError(
            [
                f"model.init_from={config.model.init_from}: its head has {extra[0]}, for which "
                f"model.head={config.model.head} has no place; give both runs the same model.head, "
                "or leave its head out with model.init_head=false"
            ]
        )


def _prior(dataset: data.LongTailed) -> float:
    """Return where sigmoid outputs start: 1/C each, or the share of positives for one output.

    Else the many negatives swamp the first steps (Lin et al. 2017, section 4.1).
    """
    if dataset.num_classes == 2:
        return float(dataset.class_counts[1] / dataset.class_counts.sum())
    return 1 / dataset.num_classes


def build_loss(
    config: Config,
    class_counts: Tensor,
    class_names: tuple[str, ...],
    *,
    taught: Sequence[int] = (),
) -> losses.Loss:
    """Build the loss of the config.

    Args:
        config: of the run.
        class_counts: (C,) training images of each class.
        class_names: in label order.
        taught: labels of the classes that the teacher knows.

    Raises:
        ConfigError: its keys do not fit the classes.
    """
    keys = loss_keys(
        config,
        class_counts,
        class_names,
        num_outputs=num_outputs(config, len(class_counts)),
    )
    try:
        loss: losses.Loss = components.build(
            "losses",
            config.loss.name,
            keys,
            class_counts=class_counts,
            num_classes=len(class_counts),
            old_classes=taught or range(len(class_counts)),
        )
    except ValueError as error:
        lists = [value for value in keys.values() if isinstance(value, tuple)]
        is_other_length = any(len(values) != len(class_counts) for values in lists)
        order = f" ({data.label_order(class_names)})" if is_other_length else ""
        raise ConfigError([f"loss={config.loss.name}: {error}{order}"]) from error
    return loss


def build_readout(
    config: Config, loss: PredictsProbabilities, *, class_counts: Tensor, classes: Sequence[int]
) -> Readout:
    """Build what turns logits into probabilities of ``classes``, adjusted as ``evaluate`` says."""
    tau = config.evaluate.logit_adjustment
    return Readout(loss, classes, adjustment(class_counts, tau=tau))


def _check_mixing(config: Config, *, world: int) -> None:
    """Refuse to mix images where no process has two of them.

    Raises:
        ConfigError: it is so.
    """
    batch_size = config.optim.batch_size
    raise_to = f"raise optim.batch_size={batch_size}, or train in fewer than {world} processes"
    mistakes = [
        f"mixup.{key}={value:g}: has no effect, each process has one image of a batch, and images "
        f"are mixed in pairs; {raise_to}"
        for key, value in config.mixup.model_dump().items()
        if value > 0 and 1 < world >= batch_size
    ]
    if mistakes:
        raise ConfigError(mistakes)


def build_trainer(
    config: Config,
    dataset: data.LongTailed,
    *,
    device: torch.device,
    start: Mapping[str, Tensor] | None = None,
    teacher: Teacher | None = None,
) -> Trainer:
    """Join model, loss, optimizer, schedule, mixing and averaging.

    Args:
        config: of the run.
        dataset: what it trains on.
        device: where it trains.
        start: weights of the run that ``model.init_from`` names.
        teacher: the run that ``teacher`` names.

    Raises:
        ConfigError: timm has no such model or optimizer, it cannot be built as asked, or several
            processes share a batch that the loss compares as a whole.
    """
    from timm.data import Mixup

    world = Processes.current().world
    if world > 1 and not derived.is_mean_over_samples(config):
        raise ConfigError(
            [
                f"loss={config.loss.name}: compares a batch as a whole, and {world} processes see "
                "a part of it each: train in one process, or with another loss"
            ]
        )
    _check_mixing(config, world=world)
    precision = choose_precision(config.runtime.precision, device)
    layout = weight_layout(device, precision=precision)
    model = build_model(config, dataset, start=start).to(device).to(memory_format=layout)
    optim, mixup = config.optim, config.mixup
    mix = Mixup(
        mixup_alpha=mixup.mixup,
        cutmix_alpha=mixup.cutmix,
        label_smoothing=0.0,
        num_classes=dataset.num_classes,
    )
    loss = build_loss(
        config,
        torch.from_numpy(dataset.class_counts),
        dataset.class_names,
        taught=dataset.classes.taught,
    )
    return Trainer(
        model,
        loss.to(device),
        optimizer=build_optimizer(
            build_groups(config, model),
            name=optim.name,
            lr=optim.lr,
            weight_decay=optim.weight_decay,
            momentum=optim.momentum,
        ),
        rate=rate_of(config),
        seed=config.seed,
        device=device,
        num_outputs=num_outputs(config, dataset.num_classes),
        teacher=None if teacher is None else teacher.to(device).to(memory_format=layout),
        mix=mix if mixup.mixup or mixup.cutmix else None,
        ema=average_of(model, decay=config.model.ema) if config.model.ema else None,
        swa=_epoch_mean(config, model),
        options=StepOptions(
            accumulate=optim.accumulate,
            clip_norm=optim.clip_norm,
            sam=optim.sam,
            precision=precision,
            keeps_gradients=config.runtime.compile == "cuda_graphs",
        ),
    )


def _epoch_mean(config: Config, model: nn.Module) -> EpochMean | None:
    if (start := config.model.swa) is None:
        return None
    return EpochMean(model, first_epoch=start_epoch(start, config.schedule.epochs))


def weight_layout(device: torch.device, *, precision: Precision) -> torch.memory_format:
    """Return how to lay out the weights; a convolution's output has the layout of its weights.

    Channels last is faster on CPUs, and on CUDA where tensor cores do the arithmetic.
    """
    if device.type == "cpu" or (device.type == "cuda" and precision != "float32"):
        return torch.channels_last
    return torch.contiguous_format


def build_class_weights(config: Config, dataset: data.LongTailed) -> Tensor | None:
    """Build the class weights (C,) float32 of ``reweight``, or None.

    Raises:
        ConfigError: there is not one explicit weight for each class, or a weight is nothing that
            float32 can hold.
    """
    scheme = config.reweight.scheme
    if scheme == choices.of("reweight.scheme").default:
        return None
    try:
        chosen = components.build("losses.weights", scheme, weight_keys(config, dataset))
        weights: Tensor = chosen(torch.from_numpy(dataset.class_counts).double())
    except ValueError as error:
        order = data.label_order(dataset.class_names)
        raise ConfigError([f"reweight.scheme={scheme}: {error} ({order})"]) from error
    single = weights.float()
    lost = torch.from_numpy(dataset.class_counts > 0) & ((single == 0) | ~single.isfinite())
    if lost.any():
        label = int(lost.nonzero()[0])
        raise ConfigError(
            [
                f"reweight.scheme={scheme}: class {dataset.class_names[label]} would have the "
                f"weight {weights[label]:.3g}, which is 0 or infinite in float32; choose weights "
                "that are less far apart"
            ]
        )
    return single


def build_sampler(config: Config, *, epoch: int) -> data.Sampler:
    """Build the sampler for an epoch (0-based): the default until the chosen one starts."""
    choice = choices.of("sampler.name")
    has_begun = epoch >= start_epoch(config.sampler.start, config.schedule.epochs)
    if has_begun and config.sampler.name != choice.default:
        keys = chosen_keys(config, "sampler.name")
        sampler: data.Sampler = components.build("data.samplers", config.sampler.name, keys)
        return sampler
    usual: data.Sampler = components.build("data.samplers", choice.default, {})
    return usual


def num_outputs(config: Config, num_classes: int) -> int:
    """Return the model's number of logits: one for a binary sigmoid loss, else one a class."""
    loss = components.read("losses", config.loss.name)
    is_binary = num_classes == 2 and loss.class_facts["activation"] == "sigmoid"
    return 1 if is_binary else num_classes


def group_limits(config: Config) -> Limits:
    """Return how many training images are many and few."""
    return Limits(config.evaluate.many_above, config.evaluate.few_below)


def needs_workers(config: Config, dataset: data.LongTailed) -> bool:
    """Return whether worker processes have something to do: decoding, or changing single images."""
    augment = augmentation(config)
    images = dataset.train.trained_on(whole=augment.resized_crop > 0)
    return isinstance(images, data.DiskImages) or augment.is_by_image


def augmentation(config: Config) -> data.Augment:
    """Build the augmentation of ``data.augment``."""
    return data.Augment(**config.data.augment.model_dump())
