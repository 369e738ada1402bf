"""What only the data can say about a config: options without effect, and a teacher that fits."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import data
from engine.config.choices import of
from engine.config.derived import NO_VALIDATION
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.training import build, notes
from engine.training.metrics import Limits, evaluate
from engine.training.runtime import preserved_randomness
from engine.training.selection import rules_of

ALWAYS_DEFINED = {"val/accuracy", "val/balanced_accuracy", "val/nll", "val/brier"}


def check_config(config: Config, dataset: data.LongTailed) -> None:
    """Check the rules of ``engine/config/rules/`` that need the data, in the same form.

    Raises:
        ConfigError: with every mistake that was found, one line each.
    """
    mistakes = [line for check in CHECKS for line in check(config, dataset)]
    if mistakes:
        raise ConfigError(mistakes)


def check_teacher(config: Config, dataset: data.LongTailed, facts: Mapping[str, Any]) -> None:
    """Refuse a teacher of other classes or images: it would teach from what is held out here.

    Args:
        config: of the run.
        dataset: what it trains on.
        facts: of the teacher's run folder.

    Raises:
        ConfigError: the teacher does not fit.
    """
    run = f"teacher={config.teacher}"
    outputs = build.num_outputs(config, dataset.num_classes)
    mistakes = []
    if tuple(facts["class_names"]) != dataset.class_names:
        mistakes.append(f"{run}: was trained on other classes than those of {dataset.title}")
    elif facts["whole_fingerprint"] not in (
        dataset.whole_fingerprint,
        *dataset.former_whole_fingerprints,
    ):
        mistakes.append(
            f"{run}: was trained on another split ({facts['whole_fingerprint']}, here "
            f"{dataset.whole_fingerprint}); give both runs the same data keys, but for "
            "data.classes, data.test_classes and data.augment"
        )
    elif facts["num_outputs"] != outputs:
        mistakes.append(f"{run}: has {facts['num_outputs']} output, this model {outputs}")
    if mistakes:
        raise ConfigError(mistakes)


def smallest_share(model: nn.Module) -> int:
    """Return how many images of a batch a process needs: two to train batch normalisation, else 0.

    Without it a run of several processes has the very batches of one.
    """
    model.train()
    is_needed = any(isinstance(m, _BatchNorm) and m.training for m in model.modules())
    return 2 if is_needed else 0


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
        images = f"{smallest_batch} image{'s'[: smallest_batch != 1]}"
        share = f"{images} for {processes} process(es) in {pieces} piece(s)"
        raise ConfigError(
            [
                f"optim.batch_size={config.optim.batch_size}: the smallest batch of an epoch has "
                f"{share}, one image at a time, and batch normalisation in {config.model.name} "
                "needs 2; raise it, lower optim.accumulate, or set model.norm=group"
            ]
        ) from error


def _choosing_needs_validation(config: Config, dataset: data.LongTailed) -> Iterator[str]:
    if dataset.val is not None:
        return
    for key in ("metric", "rules"):
        default = type(config.evaluate).model_fields[key].default
        if getattr(config.evaluate, key) != default:
            yield f"evaluate.{key}: {NO_VALIDATION}"
    if config.schedule.patience is not None:
        yield f"schedule.patience={config.schedule.patience}: {NO_VALIDATION}"


def _what_chooses_is_defined(config: Config, dataset: data.LongTailed) -> Iterator[str]:
    """Report a choosing metric that is undefined even for perfect predictions."""
    rules = rules_of(config, has_validation=dataset.val is not None)
    keys = {rule.key for rule in rules if rule.key is not None} - ALWAYS_DEFINED
    if dataset.val is None or not keys:
        return
    targets = dataset.val.targets.numpy()
    perfect = np.eye(dataset.num_classes, dtype=np.float32)[targets]
    needs_ranking = any(rule.needs_ranking for rule in rules)
    limits = build.group_limits(config)
    scalars = evaluate(
        perfect, targets, dataset.class_counts, ranking=needs_ranking, limits=limits
    ).scalars
    for key in sorted(keys):
        name = key.removeprefix("val/")
        if scalars[name] is None:
            subject = f"evaluate.metric={key}" if key == config.evaluate.metric else f"{key}"
            yield f"{subject}: is undefined on this validation split{_reason(name, limits)}"


def _reason(metric: str, limits: Limits) -> str:
    images = {
        "many_accuracy": f"more than {limits.many_above}",
        "medium_accuracy": f"{limits.few_below} to {limits.many_above}",
        "few_accuracy": f"fewer than {limits.few_below}",
    }
    if metric not in images:
        return ", whatever is predicted; choose another metric"
    return f": none of its classes has {images[metric]} training images; choose another metric"


def _own_validation_is_not_drawn(config: Config, dataset: data.LongTailed) -> Iterator[str]:
    default = type(config.data).model_validate({}).validation
    if dataset.val_is_own and config.data.validation != default:
        yield f"data.validation: has no effect, {dataset.title} has a validation split of its own"


def _groups_are_known(config: Config, dataset: data.LongTailed) -> Iterator[str]:
    if config.data.validation.group:
        return
    if not dataset.has_groups:
        yield f"data.validation.group=false: has no effect, {dataset.title} knows no groups"
    elif dataset.val is None:
        yield "data.validation.group=false: has no effect without a validation split"


def _a_seed_draws(config: Config, dataset: data.LongTailed) -> Iterator[str]:
    # With kind=none nothing can be drawn; elsewhere a sequence of factors may well end at 1.
    if config.data.imbalance.kind == "none" and notes.has_idle_seed(config, dataset):
        yield f"{notes.idle_seed(config, dataset)}; leave it out"


def _adjusted_classes_have_a_prior(config: Config, dataset: data.LongTailed) -> Iterator[str]:
    tau = config.evaluate.logit_adjustment
    lacking = [label for label in dataset.classes.predicted if dataset.class_counts[label] == 0]
    if tau and lacking:
        yield (
            f"evaluate.logit_adjustment={tau:g}: class {dataset.class_names[lacking[0]]} can be "
            "predicted but has no training image here, and so no prior; set it to 0"
        )


def _workers_need_work(config: Config, dataset: data.LongTailed) -> Iterator[str]:
    default = type(config.runtime).model_fields["workers"].default
    if not build.needs_workers(config, dataset) and config.runtime.workers != default:
        yield (
            f"runtime.workers={config.runtime.workers}: has no effect, the images of "
            f"data={config.data.name} are in memory"
        )


def _an_epoch_has_a_length_of_its_own(config: Config, dataset: data.LongTailed) -> Iterator[str]:
    if config.sampler.length == len(dataset.train):
        yield (
            f"sampler.length={config.sampler.length}: has no effect, {dataset.title} has as many "
            "training images; leave it out"
        )


def _a_head_starts_at_a_row_a_class(config: Config, dataset: data.LongTailed) -> Iterator[str]:
    known = of("model.head").fact(config.model.head, "begins_at")
    init = known or config.model.head_init
    if init != "uniform" and build.num_outputs(config, dataset.num_classes) == 1:
        said = f"model.head={config.model.head}" if known else f"model.head_init={init}"
        yield (
            f"{said}: needs an output for each class, loss={config.loss.name} has one for both; "
            f"choose another loss, or {'another head' if known else 'uniform'}"
        )


CHECKS = (
    _a_head_starts_at_a_row_a_class,
    _choosing_needs_validation,
    _what_chooses_is_defined,
    _own_validation_is_not_drawn,
    _groups_are_known,
    _a_seed_draws,
    _adjusted_classes_have_a_prior,
    _workers_need_work,
    _an_epoch_has_a_length_of_its_own,
)
