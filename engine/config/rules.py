"""An option that has no effect is an error: the list of rules, each with its sentence.

A rule takes the whole config and yields one line per mistake. What only the data or timm can know
is checked right after they are loaded, in the same form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from engine.config import components
from engine.config.calendar import complete_from, deferred_starts, start_epoch
from engine.config.choices import CHOICES, of
from engine.config.messages import allowed, shown
from engine.config.schema import Config, DataConfig, standard, tracker_fields
from engine.config.selection_rules import FINAL


class Needs(NamedTuple):
    """``key`` matters only while ``selector`` has one of ``choices``."""

    key: str
    selector: str
    choices: tuple[str, ...]


def _needs() -> Iterator[Needs]:
    imbalance = components.read_dataclass("data", "_imbalance", "Imbalance")
    for key, kinds in imbalance.class_facts["read_by"].items():
        yield Needs(f"data.imbalance.{key}", "data.imbalance.kind", kinds)
    for choice in CHOICES:
        for key, owners in choice.owners().items():
            yield Needs(key, choice.selector, owners)
        if "start" in type(Config.model_fields[choice.section].default).model_fields:
            # It puts off what is not the default.
            yield Needs(f"{choice.section}.start", choice.selector, choice.names[1:])


NEEDS = tuple(_needs())
_DEPENDENT = {(needs.key, needs.selector) for needs in NEEDS}
_SELECTORS = {needs.selector for needs in NEEDS}
NO_VALIDATION = (
    "has no effect without a validation split; set data.validation.per_class or "
    "data.validation.fraction"
)


def check(config: Config) -> list[str]:
    """Return every mistake in how the keys go together, one line each."""
    return [line for rule in RULES for line in rule(config)]


def depends_on(key: str, selector: str) -> bool:
    """Return whether ``key`` belongs to the choice that ``selector`` makes, and goes with it."""
    if selector == "loss.name":
        return key.startswith("loss.") and key != selector
    if selector == "data.name":
        return key.startswith("data.") and key.split(".")[1] not in DataConfig.model_fields
    return (key, selector) in _DEPENDENT


def has_validation(config: Config) -> bool:
    """Return whether there is, or may be, a validation split: a data set can bring its own."""
    facts = components.read("data", config.data.name).class_facts
    return asks_for_validation(config) or bool(facts.get("may_bring_validation"))


def asks_for_validation(config: Config) -> bool:
    """Return whether a key says that there is a validation split."""
    validation = config.data.validation
    is_drawn = validation.per_class is not None or validation.fraction is not None
    return is_drawn or _own_validation(config) != ""


def _own_validation(config: Config) -> str:
    """Return the key by which the data set has a validation list of its own; empty without one."""
    key = components.read("data", config.data.name).class_facts.get("validation_key", "")
    return f"data.{key}" if key and getattr(config.data, key) else ""


def _get(config: Config, key: str) -> Any:
    return _getter(key)(config)


_getter = cache(attrgetter)


def _is_set(config: Config, key: str) -> bool:
    """Return whether ``key`` differs from its default for this data set and loss."""
    usual = standard(config.data.name, config.loss.name, config.track.to)
    return _get(config, key) != _get(usual, key)


def _needs_its_choice(config: Config) -> Iterator[str]:
    chosen_by = {selector: _get(config, selector) for selector in _SELECTORS}
    usual = standard(config.data.name, config.loss.name, config.track.to)
    for key, selector, choices in NEEDS:
        chosen = chosen_by[selector]
        if chosen not in choices and _get(config, key) != _get(usual, key):
            yield f"{key}: has no effect with {selector}={chosen}; needs {' | '.join(choices)}"


def _loss_keys_change_the_loss(config: Config) -> Iterator[str]:
    is_weighted = config.reweight.scheme != "none"
    for key, where in _idle(config, is_weighted=is_weighted).items():
        if _is_set(config, f"loss.{key}"):
            yield f"loss.{key}: has no effect {where}"


def idle_loss_keys(config: Config, *, is_weighted: bool) -> list[str]:
    """Return the keys of the loss that have no effect with, or without, class weights."""
    return list(_idle(config, is_weighted=is_weighted))


def _idle(config: Config, *, is_weighted: bool) -> dict[str, str]:
    """Return the keys that the loss says to be idle here (see `losses.Loss`), and why."""
    is_mixing = config.mixup.mixup > 0 or config.mixup.cutmix > 0
    known = {
        "weight": "given" if is_weighted else None,
        "targets": "soft" if is_mixing else "labels",
        "dense": False,
        **config.loss.model_dump(),
    }
    found: dict[str, str] = {}
    for conditions, keys in _loss_fact(config, "idle"):
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


def _what_a_choice_requires_is_set(config: Config) -> Iterator[str]:
    for choice in CHOICES:
        chosen = _get(config, choice.selector)
        for key in choice.fact(chosen, "required") or ():
            if _get(config, f"{choice.section}.{key}") is None:
                word = choice.selector.rpartition(".")[2]
                info = type(getattr(config, choice.section)).model_fields[key]
                takes = allowed(info).removesuffix(", or null")
                yield f"{choice.section}.{key}: {word}={chosen} needs it: {takes}"


def _counts_go_with_their_kind(config: Config) -> Iterator[str]:
    if config.data.imbalance.kind == "counts" and config.data.imbalance.counts is None:
        yield "data.imbalance.counts: kind=counts needs it: a list, one number a class, or by name"


def _one_vs_rest_chooses_the_tail(config: Config) -> Iterator[str]:
    if config.data.one_vs_rest is not None and config.data.imbalance.order == "shuffled":
        yield (
            "data.imbalance.order=shuffled: cannot go with data.one_vs_rest, which makes the named "
            "class the rare one"
        )


def _one_vs_rest_leaves_no_classes_to_choose(config: Config) -> Iterator[str]:
    for key in ("classes", "test_classes"):
        if config.data.one_vs_rest is not None and getattr(config.data, key) is not None:
            yield (
                f"data.{key}: cannot go with data.one_vs_rest, whose two classes are the named one "
                "and the rest"
            )


def _a_teacher_needs_a_loss_that_listens(config: Config) -> Iterator[str]:
    needs_teacher = _loss_fact(config, "needs_teacher")
    if config.teacher is not None and not needs_teacher:
        yield f"teacher: has no effect, {config.loss.name} needs no teacher"
    if config.teacher is None and needs_teacher:
        yield f"teacher: loss={config.loss.name} needs it: the run folder of the model to keep to"


def _one_kind_of_validation(config: Config) -> Iterator[str]:
    validation = config.data.validation
    if validation.per_class is not None and validation.fraction is not None:
        yield (
            "data.validation.fraction: cannot go with data.validation.per_class="
            f"{validation.per_class}; set one of them to null"
        )


def _an_own_validation_leaves_none_to_draw(config: Config) -> Iterator[str]:
    own = _own_validation(config)
    for key in ("per_class", "fraction"):
        value = getattr(config.data.validation, key)
        if own and value is not None and _is_set(config, f"data.validation.{key}"):
            yield f"data.validation.{key}={value:g}: has no effect with {own}; leave one out"


def _a_validation_metric_needs_validation(config: Config) -> Iterator[str]:
    for key in ("evaluate.metric", "evaluate.rules"):
        if not has_validation(config) and _is_set(config, key):
            yield f"{key}: {NO_VALIDATION}"


def _the_final_weights_are_kept(config: Config) -> Iterator[str]:
    if FINAL not in config.evaluate.rules:
        yield f"evaluate.rules: must name {FINAL}, whose weights every checkpoint holds"


def _a_metric_needs_a_rule_that_reads_it(config: Config) -> Iterator[str]:
    is_read = "val" in config.evaluate.rules or config.evaluate.test_every_epoch
    if _is_set(config, "evaluate.metric") and not is_read:
        yield "evaluate.metric: has no effect without val in evaluate.rules"


def _no_class_has_many_and_few(config: Config) -> Iterator[str]:
    many, few = config.evaluate.many_above, config.evaluate.few_below
    if few > many + 1:
        yield (
            f"evaluate.few_below={few}: must be {many + 1} or less, as classes with more than "
            f"{many} images are many (evaluate.many_above)"
        )


def _class_weights_need_a_loss_that_takes_them(config: Config) -> Iterator[str]:
    if config.reweight.scheme != "none" and not _loss_fact(config, "takes_weight"):
        yield (
            f"reweight.scheme={config.reweight.scheme}: has no effect, "
            f"{config.loss.name} takes no class weights"
        )


def _mixing_needs_soft_targets(config: Config) -> Iterator[str]:
    for key in ("mixup", "cutmix"):
        if getattr(config.mixup, key) > 0 and not _loss_fact(config, "takes_soft_targets"):
            yield f"mixup.{key}: {config.loss.name} takes hard targets only; set mixup.{key}=0"


def _mixing_needs_two_images(config: Config) -> Iterator[str]:
    for key, value in config.mixup.model_dump().items():
        if value > 0 and config.optim.batch_size < 2:
            yield (
                f"mixup.{key}={value:g}: has no effect with optim.batch_size=1, images are mixed "
                "in pairs"
            )


def _logits_are_adjusted_once(config: Config) -> Iterator[str]:
    tau, key = config.evaluate.logit_adjustment, "evaluate.logit_adjustment"
    if tau == 0:
        return
    if fitted_prior(config) == "uniform":
        yield f"{key}={tau:g}: adjusts twice, {config.loss.name} already fits a uniform prior"
    for choice in balancing(config):
        yield f"{key}={tau:g}: adjusts twice, {choice} already balances training"


def _starts_come_before_the_end(config: Config) -> Iterator[str]:
    epochs = config.schedule.epochs
    for key, start in deferred_starts(config).items():
        if line := _never_begins(key, start, epochs=epochs):
            yield line


def _never_begins(key: str, start: float, *, epochs: int) -> str:
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
    lines = (_never_begins(*change, epochs=epochs) for change in _changes_of_rate(config))
    return [line for line in lines if line]


def _changes_of_rate(config: Config) -> Iterator[tuple[str, float]]:
    """Yield where in training a rate changes that is set once an epoch, with the key that says so.

    Keys that are left at their default are left out: nobody asked for these changes.
    """
    schedule = config.schedule
    for key in of("schedule.name").fact(schedule.name, "fractions") or ():
        if schedule.unit == "epoch" and _is_set(config, f"schedule.{key}"):
            for fraction in getattr(schedule, key):
                yield f"schedule.{key}", fraction


def idle_warm_up(config: Config) -> str:
    """Return why the warm-up that is asked for never comes; empty where it does.

    It is no mistake: a recipe of hundreds of epochs may be tried with ten, and the search for its
    keys made with fifteen.
    """
    schedule = config.schedule
    if schedule.warmup == 0 or _warms_up(config) or not _is_set(config, "schedule.warmup"):
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


def _numbers_rise_where_a_choice_says_so(config: Config) -> Iterator[str]:
    for choice in CHOICES:
        for key in choice.fact(_get(config, choice.selector), "rising") or ():
            numbers = _get(config, f"{choice.section}.{key}")
            if list(numbers) != sorted(set(numbers)):
                yield f"{choice.section}.{key}={list(numbers)}: expected numbers in rising order"


def _init_head_needs_init_from(config: Config) -> Iterator[str]:
    if config.model.init_from is None and not config.model.init_head:
        yield "model.init_head: has no effect without model.init_from"


def _a_head_starts_in_one_way(config: Config) -> Iterator[str]:
    model, init = config.model, config.model.head_init
    for key in ("text_encoder", "text_model", "text_prompt"):
        if model.head == "cosine" and init != "text" and _is_set(config, f"model.{key}"):
            yield f"model.{key}: has no effect with model.head_init={init}; needs text"
    if model.head != "cosine" or init == "uniform":
        return
    if init == "text" and model.text_encoder is None:
        yield "model.text_encoder: head_init=text needs it: a file of the weights of a CLIP"
    if init == "text" and "{}" not in model.text_prompt:
        yield f"model.text_prompt={model.text_prompt}: must hold {{}}, for the name of a class"
    if model.init_from is not None and model.init_head:
        yield (
            f"model.head_init={init}: has no effect, the head's weights are those of "
            "model.init_from; set model.init_head=false"
        )


def _means_are_not_another_runs_weights(config: Config) -> Iterator[str]:
    model = config.model
    begins_at = of("model.head").fact(model.head, "begins_at")
    if begins_at and model.init_from is not None and model.init_head:
        yield (
            f"model.init_head: has no effect with model.head={model.head}, which begins at the "
            "class means of this run; set model.init_head=false"
        )


def _several_runs_are_averaged(config: Config) -> Iterator[str]:
    runs = config.model.init_from
    if not isinstance(runs, tuple):
        return
    if len(runs) < 2:
        yield "model.init_from: a list is averaged; name two run folders or more, or one by itself"
    folders = [Path(run).expanduser().resolve() for run in runs]
    for run in sorted({runs[folders.index(f)] for f in folders if folders.count(f) > 1}):
        yield f"model.init_from: names {run} twice"


def _weights_are_averaged_in_one_way(config: Config) -> Iterator[str]:
    model = config.model
    if model.swa is not None and model.ema is not None:
        yield (
            f"model.swa={model.swa:g}: cannot go with model.ema={model.ema:g}, which averages too; "
            "set one of them to null"
        )


def _a_head_that_goes_on_has_a_start(config: Config) -> Iterator[str]:
    model = config.model
    if of("model.head").fact(model.head, "starts_anew") and (
        model.init_from is None or not model.init_head
    ):
        yield (
            f"model.head={model.head}: goes on from the head of another run; set "
            "model.init_from=<run folder>, with model.init_head=true"
        )


def _weights_come_from_one_place(config: Config) -> Iterator[str]:
    model = config.model
    if model.pretrained and model.init_from is not None:
        yield (
            f"model.pretrained={shown(model.pretrained)}: has no effect with model.init_from, "
            "whose weights take the place of these; set one of them alone"
        )


def _a_frozen_backbone_has_been_trained(config: Config) -> Iterator[str]:
    word = trains_the_head_alone(config)
    if word and not begins_trained(config):
        yield (
            f"{word}: would keep the random weights that the backbone begins with; set "
            "model.init_from=<run folder> or model.pretrained"
        )


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
    if _augments(config) and config.data.augment.views is None:
        return "every epoch has new images; needs data.augment off, or a number of views of it"
    for key in ("mixup", "cutmix"):
        if getattr(config.mixup, key) > 0:
            return f"every epoch mixes other images; needs mixup.{key}=0"
    if config.teacher is not None:
        return "the teacher looks at images; needs teacher=null"
    if isinstance(config.model.init_from, tuple):
        return "the mean of runs gets statistics from images first; needs one run in init_from"
    return ""


def _augments(config: Config) -> bool:
    """Return whether training images are changed at random."""
    keys = config.data.augment.model_dump()
    return any(value not in (0, "none") for key, value in keys.items() if key != "views")


def _views_are_of_changed_images(config: Config) -> Iterator[str]:
    views = config.data.augment.views
    if views is not None and not _augments(config):
        yield f"data.augment.views={views}: has no effect, data.augment changes no image"


def _features_are_kept_where_they_stay(config: Config) -> Iterator[str]:
    kept, reason = config.runtime.cache_features, why_features_change(config)
    if kept and reason:
        yield f"runtime.cache_features=true: cannot be, {reason}"
    if kept is False and reason:
        yield f"runtime.cache_features=false: has no effect, {reason}"


def keeps_features(config: Config) -> bool:
    """Return whether the features of an image are computed once, and kept."""
    return config.runtime.cache_features is not False and not why_features_change(config)


def _compiling_needs_images(config: Config) -> Iterator[str]:
    asked = config.runtime.compile
    if asked in (True, "cuda_graphs") and keeps_features(config):
        yield (
            f"runtime.compile={'true' if asked is True else asked}: has no effect, the head alone "
            "is trained, on features that are kept; leave it out, or set "
            "runtime.cache_features=false"
        )


def _a_backbone_is_tuned_in_one_way(config: Config) -> Iterator[str]:
    tune = config.model.tune
    if config.model.freeze and tune != of("model.tune").default:
        yield f"model.freeze=true: is model.tune=head, and cannot go with model.tune={tune}"


# Arguments of timm's constructors that have a key of their own here, or come from the data.
OWN_KEYS = {
    "device": "write runtime.device",
    "drop_rate": "write model.drop",
    "drop_path_rate": "write model.drop_path",
    "dtype": "write runtime.precision",
    "img_size": "the images' own size is given",
    "in_chans": "the images' own channels are given",
    "num_classes": "the classes are the head's, which is not the model's own",
    "pretrained": "write model.pretrained",
}


def _arguments_are_those_of_the_constructor(config: Config) -> Iterator[str]:
    for name, value in config.model.kwargs.items():
        key = f"model.kwargs.{name}"
        if name in OWN_KEYS:
            yield f"{key}: cannot be set here; {OWN_KEYS[name]}"
        elif value is None:
            yield f"{key}=null: has no effect, timm leaves such an argument out; leave it out"
    if config.model.norm == "group" and "norm_layer" in config.model.kwargs:
        yield "model.kwargs.norm_layer: cannot go with model.norm=group, which sets it"


def _parameter_groups_differ(config: Config) -> Iterator[str]:
    optim = config.optim
    if optim.decay_on == "weights" and optim.weight_decay == 0:
        yield "optim.decay_on=weights: has no effect with optim.weight_decay=0"
    if word := trains_the_head_alone(config):
        for key in ("layer_decay", "head_lr"):
            if getattr(optim, key) != 1:
                value = f"optim.{key}={getattr(optim, key):g}"
                yield f"{value}: has no effect, {word} trains the head alone"


def _a_frozen_backbone_drops_nothing(config: Config) -> Iterator[str]:
    word = trains_the_head_alone(config)
    for key in ("drop", "drop_path"):
        if word and getattr(config.model, key) > 0:
            value = f"model.{key}={getattr(config.model, key):g}"
            yield f"{value}: has no effect, with {word} the backbone only evaluates"


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


def _scaled_logits_are_cosines(config: Config) -> Iterator[str]:
    scale = getattr(config.loss, "scale", 1)
    if _loss_fact(config, "for_cosines") and not _gives_cosines(config) and scale != 1:
        heads = of("model.head")
        cosines = [name for name in heads.names if heads.fact(name, "gives_cosines")]
        yield (
            f"model.head={config.model.head}: {config.loss.name} multiplies logits by "
            f"loss.scale={scale:g}, which is for cosines; set model.head={' or '.join(cosines)}, "
            "or loss.scale=1"
        )


def _gives_cosines(config: Config) -> bool:
    return bool(of("model.head").fact(config.model.head, "gives_cosines"))


def is_mean_over_samples(config: Config) -> bool:
    """Return whether the loss of a batch can be put together from those of its parts."""
    return bool(_fact_at_keys(config, "is_mean_over_samples"))


def fitted_prior(config: Config) -> str:
    """Name the class prior that the loss alone makes a model fit: natural, uniform or neither."""
    return str(_fact_at_keys(config, "fixed_point"))


def _fact_at_keys(config: Config, name: str) -> Any:
    """Return a fact of the loss at its keys: dice is a mean over samples at loss.ratio=0."""
    chosen = config.loss.model_dump()
    for keys, facts in _loss_fact(config, "facts_at"):
        if name in facts and all(chosen[key] == value for key, value in keys.items()):
            return facts[name]
    return _loss_fact(config, name)


def balancing(config: Config) -> list[str]:
    """Return the keys beside the loss that balance training, each with its value."""
    chosen = [(choice, _get(config, choice.selector)) for choice in CHOICES]
    return [f"{c.selector}={name}" for c, name in chosen if c.fact(name, "balances")]


def leaves_cosines_unscaled(config: Config) -> bool:
    """Return whether predictions are a softmax of cosines, -1 to 1, never sure of a class."""
    return _gives_cosines(config) and not _loss_fact(config, "for_cosines")


def _preparing_images_needs_a_size(config: Config) -> Iterator[str]:
    section = config.data
    if not hasattr(section, "crop_ratio") or section.size is not None:
        return
    for key in ("test_size", "crop_ratio", "interpolation"):
        is_idle = key != "interpolation" or section.augment.resized_crop == 0
        if is_idle and _is_set(config, f"data.{key}"):
            yield f"data.{key}={shown(getattr(section, key))}: has no effect without data.size"


def _statistics_of_weights_need_weights(config: Config) -> Iterator[str]:
    if getattr(config.data, "normalize", None) == "weights" and not config.model.pretrained:
        yield (
            "data.normalize=weights: needs pretrained weights, whose mean and standard deviation "
            "it takes; set model.pretrained, or data.normalize to train or imagenet"
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
        if _is_set(config, key):
            yield f"{key}: has no effect with {off}"


def _constant_rate_has_no_unit(config: Config) -> Iterator[str]:
    schedule = config.schedule
    moves = of("schedule.name").fact(schedule.name, "moves")
    if not moves and schedule.warmup == 0 and _is_set(config, "schedule.unit"):
        yield (
            f"schedule.unit: has no effect with schedule.name={schedule.name} and schedule.warmup=0"
        )


def _loss_fact(config: Config, fact: str) -> Any:
    return components.read("losses", config.loss.name).class_facts[fact]


def _checkpoints_after_epochs_are_no_rarer(config: Config) -> Iterator[str]:
    inside, after = config.runtime.checkpoint_seconds, config.runtime.checkpoint_epoch_seconds
    if after > inside and _is_set(config, "runtime.checkpoint_epoch_seconds"):
        yield (
            f"runtime.checkpoint_epoch_seconds={after:g}: has no effect above "
            f"runtime.checkpoint_seconds={inside:g}"
        )


RULES: tuple[Callable[[Config], Iterator[str]], ...] = (
    _needs_its_choice,
    _loss_keys_change_the_loss,
    _what_a_choice_requires_is_set,
    _counts_go_with_their_kind,
    _one_vs_rest_chooses_the_tail,
    _one_vs_rest_leaves_no_classes_to_choose,
    _a_teacher_needs_a_loss_that_listens,
    _one_kind_of_validation,
    _an_own_validation_leaves_none_to_draw,
    _a_validation_metric_needs_validation,
    _the_final_weights_are_kept,
    _a_metric_needs_a_rule_that_reads_it,
    _no_class_has_many_and_few,
    _class_weights_need_a_loss_that_takes_them,
    _mixing_needs_soft_targets,
    _mixing_needs_two_images,
    _logits_are_adjusted_once,
    _starts_come_before_the_end,
    _patience_can_run_out,
    _numbers_rise_where_a_choice_says_so,
    _init_head_needs_init_from,
    _a_head_starts_in_one_way,
    _means_are_not_another_runs_weights,
    _several_runs_are_averaged,
    _weights_are_averaged_in_one_way,
    _a_head_that_goes_on_has_a_start,
    _weights_come_from_one_place,
    _a_frozen_backbone_has_been_trained,
    _views_are_of_changed_images,
    _features_are_kept_where_they_stay,
    _compiling_needs_images,
    _a_backbone_is_tuned_in_one_way,
    _arguments_are_those_of_the_constructor,
    _parameter_groups_differ,
    _a_frozen_backbone_drops_nothing,
    _pieces_divide_the_batch,
    _pieces_add_up_to_the_batch,
    _scaled_logits_are_cosines,
    _preparing_images_needs_a_size,
    _statistics_of_weights_need_weights,
    _tracker_keys_need_a_tracker,
    _constant_rate_has_no_unit,
    _checkpoints_after_epochs_are_no_rarer,
)
