"""Loss, head, sampler and class weights: every combination loads, or says in one line why not."""

from __future__ import annotations

import itertools

import pytest

from engine.config import components, derived
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.training.notes import doubts

HEADS = tuple(
    head
    for head in components.names("models.heads")
    if not components.read("models.heads", head).class_facts.get("starts_anew")
)
SAMPLERS = components.names("data.samplers")
SCHEMES = ("none", *components.names("losses.weights"))
BALANCED_BY_LOSS = {"balanced_softmax", "logit_adjustment", "lade", "vector_scaling"}


def words_of(loss: str, head: str, sampler: str, scheme: str) -> list[str]:
    words = [f"loss={loss}", f"model.head={head}", f"sampler={sampler}", f"reweight={scheme}"]
    if scheme == "explicit":
        words.append(f"reweight.weights={list(range(1, 11))}")
    return words


def expected_mistakes(loss: str, head: str, scheme: str) -> list[str]:
    """How the lines begin, from what the loss states about itself."""
    facts = components.read("losses", loss).class_facts
    found = []
    if facts["needs_teacher"]:
        found.append(f"teacher: loss={loss} needs it")
    if scheme != "none" and not facts["takes_weight"]:
        found.append(f"reweight.scheme={scheme}: has no effect, {loss} takes no class weights")
    if facts["for_cosines"] and head != "cosine":
        found.append(f"model.head={head}: {loss} multiplies logits by loss.scale=")
    return found


@pytest.mark.parametrize("loss", components.names("losses"))
def test_every_combination_loads_or_says_why_not(loss: str) -> None:
    for head, sampler, scheme in itertools.product(HEADS, SAMPLERS, SCHEMES):
        expected = expected_mistakes(loss, head, scheme)
        try:
            load(overrides=words_of(loss, head, sampler, scheme))
            mistakes: tuple[str, ...] = ()
        except ConfigError as error:
            mistakes = tuple(error.mistakes)
        context = (loss, head, sampler, scheme, mistakes)
        assert len(mistakes) == len(expected), context
        for line in mistakes:
            assert any(line.startswith(begin) for begin in expected), context
            assert "\n" not in line


@pytest.mark.parametrize("loss", components.names("losses"))
def test_what_a_combination_does_twice_is_said_once(loss: str) -> None:
    facts = components.read("losses", loss).class_facts
    for head, sampler, scheme in itertools.product(HEADS, SAMPLERS, SCHEMES):
        if expected_mistakes(loss, head, scheme):
            continue
        config: Config = load(overrides=words_of(loss, head, sampler, scheme))
        said = doubts(config)
        is_uniform = derived.fitted_prior(config) == "uniform"
        twice = (sampler != "instance") + (
            scheme in ("inverse", "inverse_sqrt", "effective_number", "power")
        )
        # Two balancers beside a loss that fits a uniform prior are a line each, else one together.
        doubled = twice if is_uniform else int(twice == 2)
        unscaled = head == "cosine" and not facts["for_cosines"]
        context = (loss, head, sampler, scheme, said)
        assert sum(line.startswith("balanced twice: ") for line in said) == doubled, context
        assert sum("does not scale" in line for line in said) == unscaled, context
        assert len(said) == len(set(said)) == doubled + unscaled, context


@pytest.mark.parametrize("loss", sorted(BALANCED_BY_LOSS))
def test_losses_that_balance_by_themselves_are_known(loss: str) -> None:
    assert derived.fitted_prior(load(overrides=[f"loss={loss}"])) == "uniform"


@pytest.mark.parametrize(
    ("words", "prior"),
    [
        (["loss=logit_adjustment", "loss.tau=0"], "natural"),
        (["loss=logit_adjustment", "loss.tau=0.5"], "none"),
        (["loss=vector_scaling", "loss.gamma=0.7"], "uniform"),
        (["loss=vector_scaling", "loss.tau=0"], "none"),
        (["loss=vector_scaling", "loss.tau=0", "loss.gamma=0"], "natural"),
    ],
    ids=str,
)
def test_the_prior_that_a_loss_fits_is_that_of_its_keys(words: list[str], prior: str) -> None:
    config = load(overrides=[*words, "reweight=inverse"])
    assert derived.fitted_prior(config) == prior
    assert any(line.startswith("balanced twice") for line in doubts(config)) == (prior == "uniform")
