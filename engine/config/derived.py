"""What follows from keys of a config that are in different sections, and from what they chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from operator import attrgetter
from typing import Any

from engine.config import components
from engine.config.calendar import start_epoch
from engine.config.choices import CHOICES, of
from engine.config.messages import shown
from engine.config.schema import Config, standard

NO_VALIDATION = (
    "has no effect without a validation split; set data.validation.per_class or "
    "data.validation.fraction"
)


def value_of(config: Config, key: str) -> Any:
    """Return the value of a key by its full name, as in ``optim.lr``."""
    return _getter(key)(config)


_getter = cache(attrgetter)


def is_set(config: Config, key: str) -> bool:
    """Return whether ``key`` differs from its default for this data set and loss."""
    usual = standard(config.data.name, config.loss.name, config.track.to)
    return value_of(config, key) != value_of(usual, key)


def has_validation(config: Config) -> bool:
    """Return whether there is, or may be, a validation split: a data set can bring its own."""
    facts = components.read("data", config.data.name).class_facts
    return asks_for_validation(config) or bool(facts.get("may_bring_validation"))


def asks_for_validation(config: Config) -> bool:
    """Return whether a key says that there is a validation split."""
    validation = config.data.validation
    is_drawn = validation.per_class is not None or validation.fraction is not None
    return is_drawn or own_validation(config) != ""


def own_validation(config: Config) -> str:
    """Return the key by which the data set has a validation list of its own; empty without one."""
    key = components.read("data", config.data.name).class_facts.get("validation_key", "")
    return f"data.{key}" if key and getattr(config.data, key) else ""


def loss_fact(config: Config, fact: str) -> Any:
    """Return what the loss says of itself (see `losses.Loss`)."""
    return components.read("losses", config.loss.name).class_facts[fact]


def _fact_at_keys(config: Config, name: str) -> Any:
    """Return a fact of the loss at its keys: dice is a mean over samples at loss.ratio=0."""
    chosen = config.loss.model_dump()
    for keys, facts in loss_fact(config, "facts_at"):
        if name in facts and all(chosen[key] == value for key, value in keys.items()):
            return facts[name]
    return loss_fact(config, name)


def idle_loss_keys(config: Config, *, is_weighted: bool) -> list[str]:
    """Return the keys of the loss that have no effect with, or without, class weights."""
    return list(idle_keys(config, is_weighted=is_weighted))


def idle_keys(config: Config, *, is_weighted: bool) -> dict[str, str]:
    """Return the keys that the loss says to be idle here (see `losses.Loss`), and why."""
    is_mixing = config.mixup.mixup > 0 or config.mixup.cutmix > 0
    known = {
        "weight": "given" if is_weighted else None,
        "targets": "soft" if is_mixing else "labels",
        "dense": False,
        **config.loss.model_dump(),
    }
    found: dict[str, str] = {}
    for conditions, keys in loss_fact(config, "idle"):
        if all(known[name] == known.get(str(v), v) for name, v in conditions.items()):
            for key in keys:
                found.setdefault(key, _circumstances(conditions, known))
    return found


def _circumstances(conditions: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Say where keys of a loss are idle, and how to get away from there."""
    keys = []
    for name, value in conditions.items():
        if name == "weight":
            keys.append("reweight.scheme=none")
        elif name not in ("targets", "dense"):
            text = f"{value:g}" if isinstance(value, float) else shown(value)
            keys.append(f"loss.{name}={f'loss.{value}' if value in known else text}")
    parts = [f"with {' and '.join(keys)}"] if keys else []
    if "targets" in conditions:
        parts.append("on labels; needs mixup.mixup or mixup.cutmix above 0")
    return " ".join(parts)


def is_mean_over_samples(config: Config) -> bool:
    """Return whether the loss of a batch can be put together from those of its parts."""
    return bool(_fact_at_keys(config, "is_mean_over_samples"))


def fitted_prior(config: Config) -> str:
    """Name the class prior that the loss alone makes a model fit: natural, uniform or neither."""
    return str(_fact_at_keys(config, "fixed_point"))


def balancing(config: Config) -> list[str]:
    """Return the keys beside the loss that balance training, each with its value."""
    chosen = [(choice, value_of(config, choice.selector)) for choice in CHOICES]
    return [f"{c.selector}={name}" for c, name in chosen if c.fact(name, "balances")]


def gives_cosines(config: Config) -> bool:
    """Return whether logits are cosines of features and class vectors."""
    return bool(of("model.head").fact(config.model.head, "gives_cosines"))


def leaves_cosines_unscaled(config: Config) -> bool:
    """Return whether predictions are a softmax of cosines, -1 to 1, never sure of a class."""
    return gives_cosines(config) and not loss_fact(config, "for_cosines")


def trains_the_head_alone(config: Config) -> str:
    """Return the key that says so, with its value; empty where it is not so."""
    if config.model.freeze:
        return "model.freeze=true"
    return "model.tune=head" if config.model.tune == "head" else ""


def begins_trained(config: Config) -> bool:
    """Return whether the backbone starts from weights that have been trained."""
    return config.model.init_from is not None or bool(config.model.pretrained)


def why_features_change(config: Config) -> str:
    """Return why the features of an image are not the same in every epoch; empty where they are."""
    if not trains_the_head_alone(config):
        return "features change with the backbone; needs model.tune=head"
    if augments(config) and config.data.augment.views is None:
        return "every epoch has new images; needs data.augment off, or a number of views of it"
    for key in ("mixup", "cutmix"):
        if getattr(config.mixup, key) > 0:
            return f"every epoch mixes other images; needs mixup.{key}=0"
    if config.teacher is not None:
        return "the teacher looks at images; needs teacher=null"
    if isinstance(config.model.init_from, tuple):
        return "the mean of runs gets statistics from images first; needs one run in init_from"
    return ""


def augments(config: Config) -> bool:
    """Return whether training images are changed at random."""
    keys = config.data.augment.model_dump()
    return any(value not in (0, "none") for key, value in keys.items() if key != "views")


def keeps_features(config: Config) -> bool:
    """Return whether the features of an image are computed once, and kept."""
    return config.runtime.cache_features is not False and not why_features_change(config)


def never_begins(key: str, start: float, *, epochs: int) -> str:
    """Return why what starts after a share of training never does; empty where it does."""
    if start_epoch(start, epochs) < epochs:
        return ""
    return (
        f"{key}={start:g}: never begins, the last of {epochs} epochs starts at "
        f"{(epochs - 1) / epochs:g} of training"
    )


def idle_changes_of_rate(config: Config) -> list[str]:
    """Return why changes of the rate that are asked for never come.

    They are no mistakes: a recipe of hundreds of epochs may be tried with one.
    """
    epochs = config.schedule.epochs
    lines = (never_begins(*change, epochs=epochs) for change in _changes_of_rate(config))
    return [line for line in lines if line]


def _changes_of_rate(config: Config) -> Iterator[tuple[str, float]]:
    """Yield where in training a rate changes that is set once an epoch, with the key that says so.

    Keys that are left at their default are left out: nobody asked for these changes.
    """
    schedule = config.schedule
    for key in of("schedule.name").fact(schedule.name, "fractions") or ():
        if schedule.unit == "epoch" and is_set(config, f"schedule.{key}"):
            for fraction in getattr(schedule, key):
                yield f"schedule.{key}", fraction


def idle_warm_up(config: Config) -> str:
    """Return why the warm-up that is asked for never comes; empty where it does.

    It is no mistake: a recipe of hundreds of epochs may be tried with ten, and the search for its
    keys made with fifteen.
    """
    schedule = config.schedule
    if schedule.warmup == 0 or _warms_up(config) or not is_set(config, "schedule.warmup"):
        return ""
    return (
        f"schedule.warmup={schedule.warmup:g}: warms nothing up with schedule.unit=epoch, it is "
        f"{schedule.warmup * schedule.epochs:g} of an epoch; set schedule.unit=step, or "
        "schedule.warmup=0"
    )


def _warms_up(config: Config) -> bool:
    """Return whether any epoch or step has a rate of the warm-up."""
    schedule = config.schedule
    if schedule.unit == "step":
        return schedule.warmup > 0
    return schedule.warmup * schedule.epochs >= 1
