"""Keys that matter only with some of the choices that another key makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from engine.config import components
from engine.config.choices import CHOICES
from engine.config.derived import value_of
from engine.config.messages import allowed
from engine.config.rules._rule import Rule
from engine.config.schema import Config, DataConfig, standard


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


def depends_on(key: str, selector: str) -> bool:
    """Return whether ``key`` belongs to the choice that ``selector`` makes, and goes with it."""
    if selector == "loss.name":
        return key.startswith("loss.") and key != selector
    if selector == "data.name":
        return key.startswith("data.") and key.split(".")[1] not in DataConfig.model_fields
    return (key, selector) in _DEPENDENT


def _needs_its_choice(config: Config) -> Iterator[str]:
    chosen_by = {selector: value_of(config, selector) for selector in _SELECTORS}
    usual = standard(config.data.name, config.loss.name, config.track.to)
    for key, selector, choices in NEEDS:
        chosen = chosen_by[selector]
        if chosen not in choices and value_of(config, key) != value_of(usual, key):
            yield f"{key}: has no effect with {selector}={chosen}; needs {' | '.join(choices)}"


def _what_a_choice_requires_is_set(config: Config) -> Iterator[str]:
    for choice in CHOICES:
        chosen = value_of(config, choice.selector)
        for key in choice.fact(chosen, "required") or ():
            if value_of(config, f"{choice.section}.{key}") is None:
                word = choice.selector.rpartition(".")[2]
                info = type(getattr(config, choice.section)).model_fields[key]
                takes = allowed(info).removesuffix(", or null")
                yield f"{choice.section}.{key}: {word}={chosen} needs it: {takes}"


def _numbers_rise_where_a_choice_says_so(config: Config) -> Iterator[str]:
    for choice in CHOICES:
        for key in choice.fact(value_of(config, choice.selector), "rising") or ():
            numbers = value_of(config, f"{choice.section}.{key}")
            if list(numbers) != sorted(set(numbers)):
                yield f"{choice.section}.{key}={list(numbers)}: expected numbers in rising order"


RULES: tuple[Rule, ...] = (
    _needs_its_choice,
    _what_a_choice_requires_is_set,
    _numbers_rise_where_a_choice_says_so,
)
