"""Where a model's weights come from, its head, and what of it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.config.choices import of
from engine.config.derived import begins_trained, is_set, trains_the_head_alone
from engine.config.messages import shown
from engine.config.rules._rule import Rule
from engine.config.schema import Config


def _init_head_needs_init_from(config: Config) -> Iterator[str]:
    if config.model.init_from is None and not config.model.init_head:
        yield "model.init_head: has no effect without model.init_from"


def _a_head_starts_in_one_way(config: Config) -> Iterator[str]:
    model, init = config.model, config.model.head_init
    for key in ("text_encoder", "text_model", "text_prompt"):
        if model.head == "cosine" and init != "text" and is_set(config, f"model.{key}"):
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


def _a_frozen_backbone_drops_nothing(config: Config) -> Iterator[str]:
    word = trains_the_head_alone(config)
    for key in ("drop", "drop_path"):
        if word and getattr(config.model, key) > 0:
            value = f"model.{key}={getattr(config.model, key):g}"
            yield f"{value}: has no effect, with {word} the backbone only evaluates"


RULES: tuple[Rule, ...] = (
    _init_head_needs_init_from,
    _a_head_starts_in_one_way,
    _means_are_not_another_runs_weights,
    _several_runs_are_averaged,
    _weights_are_averaged_in_one_way,
    _a_head_that_goes_on_has_a_start,
    _weights_come_from_one_place,
    _a_frozen_backbone_has_been_trained,
    _a_backbone_is_tuned_in_one_way,
    _arguments_are_those_of_the_constructor,
    _a_frozen_backbone_drops_nothing,
)
