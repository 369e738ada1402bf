"""What must be said of a run: before it trains, and beside its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

import data
import models
from engine.config import choices, components, derived
from engine.config.cores import num_cores
from engine.config.schema import Config
from engine.training import averaging
from engine.training.build import group_limits, needs_workers, num_outputs
from engine.training.class_values import loss_keys

_FEW_WORKERS = 2  # so many disturb nobody, also on one core
_SAME_STATISTICS = 0.005  # as far apart as the rounding of published ones

TRAINS = "trains "  # begins the note on how much of a model is trained


def notes(config: Config) -> tuple[str, ...]:
    """Return what tables must say about how the model was trained and predictions were made."""
    found = doubts(config)
    if (tau := config.evaluate.logit_adjustment) != 0:
        share = "log(share of training images)"
        found += (f"predictions use logits - {tau:g} {share} (evaluate.logit_adjustment)",)
    return (*found, *group_limits(config).notes)


def doubts(config: Config) -> tuple[str, ...]:
    """Return what is allowed and hardly ever meant in how loss, head and balancing go together."""
    loss, found, balancing = config.loss.name, [], derived.balancing(config)
    if derived.fitted_prior(config) == "uniform":
        found += [
            f"balanced twice: {loss} fits a uniform prior by itself, {choice} balances training too"
            for choice in balancing
        ]
    elif len(balancing) > 1:
        found.append(f"balanced twice: {' and '.join(balancing)} each balance training")
    if derived.leaves_cosines_unscaled(config):
        found.append(
            f"logits are cosines, -1 to 1, which {loss} does not scale: no prediction is sure "
            "(model.head=cosine)"
        )
    return tuple(found)


def light_notes(config: Config, parameters: Mapping[str, int]) -> tuple[str, ...]:
    """Return how much of a lightly tuned model is trained, and what the rest of it is.

    Args:
        config: of the run.
        parameters: ``trained`` and ``total``.
    """
    tune = config.model.tune
    if tune == choices.of("model.tune").default:
        return ()
    trained, total = parameters["trained"], parameters["total"]
    found: tuple[str, ...] = (
        f"{TRAINS}{trained:,} of {total:,} parameters ({trained / total:.2%}, model.tune={tune})",
    )
    if not derived.begins_trained(config):
        found += (
            f"the rest of the backbone keeps its random weights (model.tune={tune} without "
            "model.pretrained or model.init_from)",
        )
    return found


def opening_notes(config: Config, dataset: data.LongTailed, *, num_steps: int) -> tuple[str, ...]:
    """Return what a user should know before training, not only after it.

    Args:
        config: of the run.
        dataset: what it trains on.
        num_steps: optimizer steps of the run.
    """
    notes = (*dataset.source_notes, *doubts(config), *_image_notes(config, dataset))
    if has_idle_seed(config, dataset):
        notes += (idle_seed(config, dataset),)
    if line := derived.idle_warm_up(config):
        notes += (line,)
    notes += tuple(derived.idle_changes_of_rate(config))
    counts = dataset.class_counts[list(dataset.classes.trained)]
    follows_counts = choices.of("reweight.scheme").fact(config.reweight.scheme, "follows_counts")
    if follows_counts and (counts == counts[0]).all():
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
    if needs_workers(config, dataset) and config.runtime.workers > max(num_cores(), _FEW_WORKERS):
        notes += (
            f"runtime.workers={config.runtime.workers} for {num_cores()} cores: they take turns, "
            "and each of them holds batches in memory",
        )
    if (remark := averaging.remark(config.model.ema, num_steps=num_steps)) is not None:
        notes += (remark,)
    return notes


def _image_notes(config: Config, dataset: data.LongTailed) -> Iterator[str]:
    """Yield where training images come from if not from the cache, and whose statistics differ."""
    train, augment = dataset.train, config.data.augment
    if not isinstance(train.images, data.DiskImages) and isinstance(
        train.trained_on(whole=augment.resized_crop > 0), data.DiskImages
    ):
        why = "crops whole images" if augment.resized_crop else "trains as it does not test"
        key = "data.augment.resized_crop" if augment.resized_crop else _test_keys(config)
        yield (
            f"{key} {why}, and the cache holds images as they are tested: training images are "
            f"decoded from their files, by runtime.workers={config.runtime.workers}"
        )
    if config.model.pretrained:
        yield from _other_statistics(config, dataset)


def _test_keys(config: Config) -> str:
    """Return which of the keys that prepare tested images otherwise are set."""
    usual = {"test_size": None, "crop_ratio": 1.0}
    is_set = [key for key, own in usual.items() if getattr(config.data, key, own) != own]
    return " with ".join(f"data.{key}" for key in is_set)


def _other_statistics(config: Config, dataset: data.LongTailed) -> Iterator[str]:
    try:
        theirs = models.normalization(config.model.name)
    except models.ModelError:
        return
    ours = (dataset.mean, dataset.std)
    if len(ours[0]) != len(theirs.mean) or np.allclose(ours, theirs, atol=_SAME_STATISTICS):
        return
    mean, std = (", ".join(f"{value:.3f}" for value in values) for values in theirs)
    instead = "; data.normalize=weights takes theirs" if hasattr(config.data, "normalize") else ""
    yield (
        f"the weights of {config.model.name} were made with mean {mean} and standard deviation "
        f"{std}, here images are normalised by {', '.join(f'{v:.3f}' for v in ours[0])} and "
        f"{', '.join(f'{v:.3f}' for v in ours[1])}{instead}"
    )


def listed_weights(
    config: Config, dataset: data.LongTailed, weights: Tensor | None
) -> tuple[str, ...]:
    """Return a line with the class weights (C,) that a user has chosen one by one."""
    choice = choices.of("reweight.scheme")
    if weights is None or choice.fact(config.reweight.scheme, "follows_counts"):
        return ()
    return (f"class weights in {data.label_order(dataset.class_names, weights.tolist())}",)


def listed_loss_values(config: Config, dataset: data.LongTailed) -> tuple[str, ...]:
    """Return a line for each key of the loss that has a number a class."""
    keys = loss_keys(
        config,
        torch.from_numpy(dataset.class_counts),
        dataset.class_names,
        num_outputs=num_outputs(config, dataset.num_classes),
    )
    found = {name: value for name, value in keys.items() if isinstance(value, tuple)}
    return tuple(
        f"loss.{name} in {data.label_order(dataset.class_names, values)}"
        if len(values) == dataset.num_classes
        else f"loss.{name}: {values[0]:g} for {dataset.class_names[-1]}"
        for name, values in found.items()
    )


def has_idle_seed(config: Config, dataset: data.LongTailed) -> bool:
    """Return whether ``data.imbalance.seed`` is set although no image is drawn by it."""
    default = type(config.data.imbalance).model_fields["seed"].default
    return not dataset.is_drawn and config.data.imbalance.seed != default


def idle_seed(config: Config, dataset: data.LongTailed) -> str:
    """Return the sentence on a seed that draws nothing."""
    return (
        f"data.imbalance.seed={config.data.imbalance.seed}: has no effect, every training image "
        f"of {dataset.title} is used and none is held out"
    )
