"""Selection rules, the metrics that they go by, and what is sent to trackers."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.derived import NO_VALIDATION, has_validation, is_set
from engine.config.rules._rule import Rule
from engine.config.schema import Config, tracker_fields
from engine.config.selection_rules import FINAL


def _a_validation_metric_needs_validation(config: Config) -> Iterator[str]:
    for key in ("evaluate.metric", "evaluate.rules"):
        if not has_validation(config) and is_set(config, key):
            yield f"{key}: {NO_VALIDATION}"


def _the_final_weights_are_kept(config: Config) -> Iterator[str]:
    if FINAL not in config.evaluate.rules:
        yield f"evaluate.rules: must name {FINAL}, whose weights every checkpoint holds"


def _a_metric_needs_a_rule_that_reads_it(config: Config) -> Iterator[str]:
    is_read = "val" in config.evaluate.rules or config.evaluate.test_every_epoch
    if is_set(config, "evaluate.metric") and not is_read:
        yield "evaluate.metric: has no effect without val in evaluate.rules"


def _no_class_has_many_and_few(config: Config) -> Iterator[str]:
    many, few = config.evaluate.many_above, config.evaluate.few_below
    if few > many + 1:
        yield (
            f"evaluate.few_below={few}: must be {many + 1} or less, as classes with more than "
            f"{many} images are many (evaluate.many_above)"
        )


def _tracker_keys_need_a_tracker(config: Config) -> Iterator[str]:
    track = config.track
    if twice := sorted({name for name in track.to if track.to.count(name) > 1}):
        yield f"track.to: names {', '.join(twice)} twice"
    if track.wandb == "online" and "wandb" not in track.to:
        yield "track.wandb=online: has no effect where track.to does not name wandb"
    idle = [] if track.is_tracked else ["track.group", "track.per_class"]
    if "wandb" in track.to and track.wandb == "disabled":
        idle += [f"track.{key}" for key in tracker_fields("wandb")]
    off = "track.wandb=disabled" if "wandb" in track.to else "track.to=[]"
    for key in idle:
        if is_set(config, key):
            yield f"{key}: has no effect with {off}"


RULES: tuple[Rule, ...] = (
    _a_validation_metric_needs_validation,
    _the_final_weights_are_kept,
    _a_metric_needs_a_rule_that_reads_it,
    _no_class_has_many_and_few,
    _tracker_keys_need_a_tracker,
)
