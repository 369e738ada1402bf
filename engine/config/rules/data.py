"""Data sets, their imbalance, their validation split and what is done to images."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config.derived import augments, is_set, own_validation
from engine.config.messages import shown
from engine.config.rules._rule import Rule
from engine.config.schema import Config


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


def _one_kind_of_validation(config: Config) -> Iterator[str]:
    validation = config.data.validation
    if validation.per_class is not None and validation.fraction is not None:
        yield (
            "data.validation.fraction: cannot go with data.validation.per_class="
            f"{validation.per_class}; set one of them to null"
        )


def _an_own_validation_leaves_none_to_draw(config: Config) -> Iterator[str]:
    own = own_validation(config)
    for key in ("per_class", "fraction"):
        value = getattr(config.data.validation, key)
        if own and value is not None and is_set(config, f"data.validation.{key}"):
            yield f"data.validation.{key}={value:g}: has no effect with {own}; leave one out"


def _views_are_of_changed_images(config: Config) -> Iterator[str]:
    views = config.data.augment.views
    if views is not None and not augments(config):
        yield f"data.augment.views={views}: has no effect, data.augment changes no image"


def _preparing_images_needs_a_size(config: Config) -> Iterator[str]:
    section = config.data
    if not hasattr(section, "crop_ratio") or section.size is not None:
        return
    for key in ("test_size", "crop_ratio", "interpolation"):
        is_idle = key != "interpolation" or section.augment.resized_crop == 0
        if is_idle and is_set(config, f"data.{key}"):
            yield f"data.{key}={shown(getattr(section, key))}: has no effect without data.size"


def _statistics_of_weights_need_weights(config: Config) -> Iterator[str]:
    if getattr(config.data, "normalize", None) == "weights" and not config.model.pretrained:
        yield (
            "data.normalize=weights: needs pretrained weights, whose mean and standard deviation "
            "it takes; set model.pretrained, or data.normalize to train or imagenet"
        )


RULES: tuple[Rule, ...] = (
    _counts_go_with_their_kind,
    _one_vs_rest_chooses_the_tail,
    _one_vs_rest_leaves_no_classes_to_choose,
    _one_kind_of_validation,
    _an_own_validation_leaves_none_to_draw,
    _views_are_of_changed_images,
    _preparing_images_needs_a_size,
    _statistics_of_weights_need_weights,
)
