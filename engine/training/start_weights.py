"""The run that a run starts from: whether its weights fit, and which of them go where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import data
from engine.config import choices
from engine.config.load import load_run_config, named_runs
from engine.config.mistakes import ConfigError
from engine.config.schema import Config, chosen_keys
from engine.training import build, trained
from engine.training.facts import read_facts
from engine.training.named_runs import finished_weights, joined_identity
from engine.training.weights_hash import former_hash, weights_hash

NAMES_SHOWN = 3
WITHOUT_HEAD = "model.init_head=false leaves its head out"


@dataclass(frozen=True)
class StartWeights:
    """What ``model.init_from`` gives.

    Attributes:
        state: the weights as they go into this run's model.
        identity: hash of the named run's weights, before anything was moved.
        former_identity: the same as older runs recorded it.
        sentence: which weights they are, and what was done to them.
        trained: the named run's weights themselves; None for the mean of several.
    """

    state: dict[str, Tensor]
    identity: str
    former_identity: str
    sentence: str
    trained: Mapping[str, Tensor] | None = None


def start_weights(config: Config, dataset: data.LongTailed) -> StartWeights | None:
    """Return the headline weights of the run that ``model.init_from`` names; None for none.

    Of several runs it is the mean (Wortsman et al. 2022, "Model soups: averaging weights of
    multiple fine-tuned models improves accuracy without increasing inference time", sec. 2).

    Args:
        config: of the run.
        dataset: what it trains on.

    Raises:
        ConfigError: a run is not finished, is of another model or other data than fit, or of
            other weights than the first.
    """
    runs = named_runs(config.model.init_from)
    found = {run: _weights_of(run, config, dataset) for run in runs}
    if len(found) < 2:
        return next(iter(found.values()), None)
    return StartWeights(
        _mean_of(found, config),
        identity=str(joined_identity(start.identity for start in found.values())),
        former_identity=str(joined_identity(start.former_identity for start in found.values())),
        sentence=f"starts from the mean of {len(found)} runs: "
        + "; ".join(start.sentence.removeprefix("starts from ") for start in found.values()),
    )


def _weights_of(run: str, config: Config, dataset: data.LongTailed) -> StartWeights:
    """Return the headline weights of one run; rows of the head go to the classes of their names."""
    weights = finished_weights("model.init_from", run)
    facts, earlier = read_facts(run), load_run_config(run, check_named_runs=False)
    if mistakes := list(_mistakes(config, dataset, facts=facts, earlier=earlier)):
        raise ConfigError([f"model.init_from={run}: {mistakes[0]}"])
    theirs, ours = tuple(facts["class_names"]), dataset.class_names
    is_moved = config.model.init_head and theirs != ours
    state = trained.start_state(run, weights)
    if is_moved:
        state = _with_head_in([theirs.index(name) for name in ours], state, run=run)
    return StartWeights(
        state,
        identity=weights_hash(weights.state),
        former_identity=former_hash(weights.state),
        sentence=_sentence(config, weights, facts=facts, dataset=dataset, is_moved=is_moved),
        trained=weights.state,
    )


def _mean_of(starts: Mapping[str, StartWeights], config: Config) -> dict[str, Tensor]:
    """Return the mean of the weights of several runs, in float64; whole numbers are of one of them.

    Raises:
        ConfigError: they are not of the same names and shapes.
    """
    (first, shapes), *others = (
        (run, {k: v.shape for k, v in start.state.items() if _is_wanted(k, config)})
        for run, start in starts.items()
    )
    for run, theirs in others:
        differing = [k for k in shapes.keys() | theirs.keys() if shapes.get(k) != theirs.get(k)]
        if differing:
            raise ConfigError(
                [
                    f"model.init_from={run}: {min(differing)} is not as in {first}, with which it "
                    "is to be averaged; name runs of one model"
                ]
            )
    # The last bit of a sum depends on the order: that of the hashes, however the runs are named.
    every = [start.state for start in sorted(starts.values(), key=lambda start: start.identity)]
    mean = {}
    for key in shapes:
        value = every[0][key]
        if value.is_floating_point():
            value = torch.stack([state[key].double() for state in every]).mean(0).to(value.dtype)
        mean[key] = value
    return mean


def _is_wanted(key: str, config: Config) -> bool:
    return config.model.init_head or not key.startswith("head.")


def _mistakes(
    config: Config, dataset: data.LongTailed, *, facts: Mapping[str, Any], earlier: Config
) -> Iterator[str]:
    yield from _tuning_mistakes(earlier, config)
    for key in ("name", "norm"):
        theirs, ours = getattr(earlier.model, key), getattr(config.model, key)
        if theirs.partition(".")[0] != ours.partition(".")[0]:  # a tag names weights of timm
            yield f"is a run of model.{key}={theirs}, this one of {ours}; give both the same"
    theirs, ours = facts["image_shape"][0], dataset.image_shape.channels
    if theirs != ours:
        yield (
            f"was trained on images of {theirs} channel(s), those of {dataset.title} have {ours}; "
            "give both runs images of the same channels"
        )
    if config.model.init_head:
        outputs = build.num_outputs(config, dataset.num_classes)
        yield from _head_mistakes(facts, dataset, outputs=outputs)
        yield from _kind_mistakes(earlier.model.head, config.model.head)


def _tuning_mistakes(earlier: Config, config: Config) -> Iterator[str]:
    """Refuse a run with parts that only a run of the same tuning has."""
    selector = "model.tune"
    tune = earlier.model.tune
    if tune not in ("adapter", "prompt"):
        return
    if config.model.tune != tune or chosen_keys(earlier, selector) != chosen_keys(config, selector):
        yield (
            f"is a run of {selector}={tune}, whose added parts this run does not have; give both "
            f"the same {selector} with the same keys"
        )


def _head_mistakes(
    facts: Mapping[str, Any], dataset: data.LongTailed, *, outputs: int
) -> Iterator[str]:
    theirs, ours = tuple(facts["class_names"]), dataset.class_names
    if set(theirs) != set(ours):
        other = f"other classes than those of {dataset.title} ({_difference(theirs, ours)})"
        yield f"was trained on {other}; {WITHOUT_HEAD}"
    elif facts["num_outputs"] != outputs:
        yield f"has {facts['num_outputs']} output(s), this model {outputs}; {WITHOUT_HEAD}"
    elif outputs == 1 and theirs != ours:
        yield f"has the output of class {theirs[1]}, this model that of {ours[1]}; {WITHOUT_HEAD}"


def _kind_mistakes(theirs: str, ours: str) -> Iterator[str]:
    """Refuse directions for a head that goes on from weights: their lengths mean nothing."""
    fact = choices.of("model.head").fact
    is_of_directions = fact(theirs, "gives_cosines") or fact(theirs, "begins_at")
    if theirs != ours and is_of_directions and fact(ours, "starts_anew"):
        yield (
            f"is a run of model.head={theirs}, whose weights are directions of any length; "
            f"model.head={ours} goes on from those of a head that multiplies by them, as linear"
        )


def _difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """Name the first few classes that only one side has."""
    said = []
    for place, names in (
        ("there alone", [name for name in theirs if name not in set(ours)]),
        ("here alone", [name for name in ours if name not in set(theirs)]),
    ):
        if names:
            more = ", ..." if len(names) > NAMES_SHOWN else ""
            said.append(f"{place}: {', '.join(names[:NAMES_SHOWN])}{more}")
    return "; ".join(said)


def _with_head_in(
    order: Sequence[int], state: Mapping[str, Tensor], *, run: str
) -> dict[str, Tensor]:
    """Return the weights with the rows of the head in another order of the classes."""
    moved = dict(state)
    for key, value in state.items():
        if not key.startswith("head."):
            continue
        if value.ndim == 0:  # of all classes
            continue
        if len(value) != len(order):
            raise ConfigError(
                [
                    f"model.init_from={run}: has the same classes in another order, and {key} is "
                    f"not one row a class; {WITHOUT_HEAD}"
                ]
            )
        moved[key] = value[torch.tensor(order)]
    return moved


def _sentence(
    config: Config,
    weights: trained.Weights,
    *,
    facts: Mapping[str, Any],
    dataset: data.LongTailed,
    is_moved: bool,
) -> str:
    said = [
        f"starts from the weights of run {facts['fingerprint']} after epoch {weights.epoch} "
        f"(rule {weights.rule})"
    ]
    if not config.model.init_head:
        said.append("with a new head")
    elif is_moved:
        said.append("the head's rows in the order of these classes")
    (_, *theirs), ours = facts["image_shape"], dataset.image_shape
    if theirs != [ours.height, ours.width]:
        size = f"{theirs[0]} x {theirs[1]} pixels, here {ours.height} x {ours.width}"
        said.append(f"trained on images of {size}")
    return ", ".join(said)
