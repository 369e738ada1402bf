"""Rates and their changes, batches, parts of them, and how they are computed."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.calendar import complete_from, deferred_starts
from engine.config.choices import of
from engine.config.derived import (
    NO_VALIDATION,
    has_validation,
    is_mean_over_samples,
    is_set,
    keeps_features,
    never_begins,
    trains_the_head_alone,
    why_features_change,
)
from engine.config.rules._rule import Rule
from engine.config.schema import Config


def _starts_come_before_the_end(config: Config) -> Iterator[str]:
    epochs = config.schedule.epochs
    for key, start in deferred_starts(config).items():
        if line := never_begins(key, start, epochs=epochs):
            yield line


def _patience_can_run_out(config: Config) -> Iterator[str]:
    patience, epochs = config.schedule.patience, config.schedule.epochs
    if patience is None:
        return
    key = f"schedule.patience={patience}"
    if not has_validation(config):
        yield f"{key}: {NO_VALIDATION}"
    if "val" not in config.evaluate.rules:
        yield f"{key}: goes by the metric of the rule val; name val in evaluate.rules"
    first, reason = complete_from(config)
    if first + patience >= epochs:
        since = f" of {epochs} on" + (f" ({reason})" if reason else "")
        at_most = epochs - first - 1
        remedy = f"set it to {at_most} or less" if at_most > 0 else "set it to null"
        yield f"{key}: ends nothing early, it counts from epoch {first}{since}; {remedy}"


def _constant_rate_has_no_unit(config: Config) -> Iterator[str]:
    schedule = config.schedule
    moves = of("schedule.name").fact(schedule.name, "moves")
    if not moves and schedule.warmup == 0 and is_set(config, "schedule.unit"):
        yield (
            f"schedule.unit: has no effect with schedule.name={schedule.name} and schedule.warmup=0"
        )


def _parameter_groups_differ(config: Config) -> Iterator[str]:
    optim = config.optim
    if optim.decay_on == "weights" and optim.weight_decay == 0:
        yield "optim.decay_on=weights: has no effect with optim.weight_decay=0"
    if word := trains_the_head_alone(config):
        for key in ("layer_decay", "head_lr"):
            if getattr(optim, key) != 1:
                value = f"optim.{key}={getattr(optim, key):g}"
                yield f"{value}: has no effect, {word} trains the head alone"


def _pieces_divide_the_batch(config: Config) -> Iterator[str]:
    if config.optim.batch_size % config.optim.accumulate:
        yield (
            f"optim.accumulate={config.optim.accumulate}: must divide "
            f"optim.batch_size={config.optim.batch_size}"
        )


def _pieces_add_up_to_the_batch(config: Config) -> Iterator[str]:
    if config.optim.accumulate > 1 and not is_mean_over_samples(config):
        yield (
            f"optim.accumulate={config.optim.accumulate}: {config.loss.name} compares a batch as a "
            "whole, in pieces it is another loss; set optim.accumulate=1, and a smaller "
            "optim.batch_size to save memory"
        )


def _features_are_kept_where_they_stay(config: Config) -> Iterator[str]:
    kept, reason = config.runtime.cache_features, why_features_change(config)
    if kept and reason:
        yield f"runtime.cache_features=true: cannot be, {reason}"
    if kept is False and reason:
        yield f"runtime.cache_features=false: has no effect, {reason}"


def _compiling_needs_images(config: Config) -> Iterator[str]:
    asked = config.runtime.compile
    if asked in (True, "cuda_graphs") and keeps_features(config):
        yield (
            f"runtime.compile={'true' if asked is True else asked}: has no effect, the head alone "
            "is trained, on features that are kept; leave it out, or set "
            "runtime.cache_features=false"
        )


def _checkpoints_after_epochs_are_no_rarer(config: Config) -> Iterator[str]:
    inside, after = config.runtime.checkpoint_seconds, config.runtime.checkpoint_epoch_seconds
    if after > inside and is_set(config, "runtime.checkpoint_epoch_seconds"):
        yield (
            f"runtime.checkpoint_epoch_seconds={after:g}: has no effect above "
            f"runtime.checkpoint_seconds={inside:g}"
        )


RULES: tuple[Rule, ...] = (
    _starts_come_before_the_end,
    _patience_can_run_out,
    _features_are_kept_where_they_stay,
    _compiling_needs_images,
    _parameter_groups_differ,
    _pieces_divide_the_batch,
    _pieces_add_up_to_the_batch,
    _constant_rate_has_no_unit,
    _checkpoints_after_epochs_are_no_rarer,
)
