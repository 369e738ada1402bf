"""Up to which epoch runs of a table are trained alike, by what an epoch does to a run.

A config says more than that: before ``reweight.start`` there are no class weights, and a schedule
whose rate falls for the first time after half of training is, until then, any other that does.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from engine.config import components
from engine.config.calendar import complete_from, deferred_starts, start_epoch
from engine.config.derived import asks_for_validation, has_validation, idle_loss_keys
from engine.config.schema import Config, standard
from engine.tables.cells import Cell
from engine.training.rates import rate_of


class Source(NamedTuple):
    """A run in which another begins, as its first epochs are trained there.

    Attributes:
        cell: the run.
        epochs: how many of its first epochs are those of the other.
    """

    cell: Cell
    epochs: int

    @property
    def is_whole(self) -> bool:
        """Whether that is all of the training: the two differ in how they predict alone."""
        return self.epochs == self.cell.config.schedule.epochs


def sources_of(cells: Sequence[Cell]) -> dict[str, Source]:
    """Return the source of each run that begins in another, by its fingerprint.

    A run begins in an earlier one of the table, in that with which it has most epochs in common (of
    several the first). Where these are all, it may be a later one: the one that logs test in every
    epoch, if any does.

    Args:
        cells: all runs, in the order in which they are made.
    """
    groups: dict[str, list[_Training]] = {}
    for cell in cells:
        if not cell.config.track.is_tracked:  # a tracker follows the epochs that are trained
            training = _Training(cell)
            groups.setdefault(training.beginning, []).append(training)
    found: dict[str, Source] = {}
    for group in groups.values():
        whole = {t.fingerprint: source for t in group if (source := _whole_source(t, group))}
        found |= whole
        trained = [training for training in group if training.fingerprint not in whole]
        for number, training in enumerate(trained):
            before = [Source(t.cell, epochs_alike(t, training)) for t in trained[:number]]
            longest = max(before, key=lambda source: source.epochs, default=None)
            if longest is not None and longest.epochs:
                found[training.fingerprint] = longest
    return found


def _whole_source(training: _Training, group: Sequence[_Training]) -> Source | None:
    """Return the run that trains all epochs of this one; None if it is this one."""
    same = [t for t in group if t is training or epochs_alike(t, training) == t.length]
    first = min(same, key=lambda t: not t.config.evaluate.test_every_epoch)
    return None if first is training else Source(first.cell, first.length)


class _Training:
    """What a run of a table does in each epoch.

    Args:
        cell: the run.

    Attributes:
        length: epochs.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell, self.config, self.fingerprint = cell, cell.config, cell.fingerprint
        self.length: int = cell.config.schedule.epochs
        self._content = cell.config.model_dump(mode="json")

    @cached_property
    def beginning(self) -> str:
        """What must be equal for anything to be alike."""
        first = self.effect(1)
        evaluate = {**first["evaluate"], "test_every_epoch": False, "logit_adjustment": 0.0}
        return json.dumps({**first, "evaluate": evaluate}, sort_keys=True)

    @cached_property
    def logs_predictions(self) -> bool:
        """Whether an epoch's line, and what is chosen by it, hang on how the run predicts.

        So they do, too, where the data bring a validation split of their own, which shows later.
        """
        return asks_for_validation(self.config) or self.config.evaluate.test_every_epoch

    @cached_property
    def complete_from(self) -> int:
        """The first epoch (from 1) in which the whole method is at work, and may be chosen."""
        return complete_from(self.config).epoch

    def effect(self, epochs: int) -> dict[str, Any]:
        """Return the config without what has no effect on the first ``epochs`` epochs."""
        content = {**self._content, "schedule": self._schedule(epochs)}
        for key, start in deferred_starts(self.config).items():
            if start_epoch(start, self.length) >= epochs:
                content |= self._without(key, content)
        content |= self._unweighted_loss(content)
        if not self.logs_predictions:
            content["evaluate"] = {**content["evaluate"], "logit_adjustment": 0.0}
        return content

    def _schedule(self, epochs: int) -> dict[str, Any]:
        """Return the rates; a rate that changes step by step is told by all keys alone."""
        section: dict[str, Any] = self._content["schedule"]
        if section["unit"] == "step":
            return section
        kept = {key: section[key] for key in ("epochs", "patience")}
        return {**kept, "rates": self._rates[:epochs]}

    @cached_property
    def _rates(self) -> list[float]:
        rate = rate_of(self.config)
        return [rate(epoch, 0, 1) for epoch in range(self.length)]

    def _without(self, key: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the section as it is before the part of the method that ``key`` puts off."""
        config = self.config
        section, _, _ = key.partition(".")
        usual = standard(config.data.name, config.loss.name, config.track.to)
        if key == "sampler.start":
            default = usual.sampler.model_dump(mode="json")
            return {section: {**default, "length": config.sampler.length}}
        if key == "reweight.start":
            return {section: usual.reweight.model_dump(mode="json")}
        if key == "model.swa" and config.runtime.compile is False:  # else it changes what compiles
            return {section: {**content[section], "swa": None}}
        return dict(_before_loss_start(config)) if key == "loss.start" else {}

    def _unweighted_loss(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the loss without the keys that only class weights give an effect to."""
        config, loss = self.config, content["loss"]
        is_weighted = content["reweight"]["scheme"] == config.reweight.scheme
        if is_weighted or loss["name"] != config.loss.name:
            return {}
        usual = standard(config.data.name, config.loss.name, config.track.to).loss.model_dump()
        idle = idle_loss_keys(config, is_weighted=False)
        return {"loss": {**loss, **{key: usual[key] for key in idle}}}


def _before_loss_start(config: Config) -> Iterator[tuple[str, Any]]:
    """Yield the section of the loss that this one says it is, value and gradient, before it starts.

    A loss says so by a line of its ``equals`` whose one key is ``start``.
    """
    facts = components.read("losses", config.loss.name).class_facts
    for keys, name, values in facts.get("equals", ()):
        if keys.keys() == {"start"}:
            usual = standard(config.data.name, name, config.track.to).loss
            yield "loss", {**usual.model_dump(mode="json"), **values}


def epochs_alike(first: _Training, other: _Training) -> int:
    """Return in how many of the first epochs ``first`` leaves all that ``other`` would have then.

    It may log more: test in every epoch, where the other does not. What selection rules have chosen
    is either the same, or nothing is open to those of the other yet.
    """
    if first.length != other.length:
        return 0

    def differ(epochs: int) -> bool:
        ours, theirs = first.effect(epochs), other.effect(epochs)
        if not other.config.evaluate.test_every_epoch:
            ours["evaluate"] = {**ours["evaluate"], "test_every_epoch": False}
        if not other.logs_predictions:
            ours["evaluate"] = {**ours["evaluate"], "logit_adjustment": 0.0}
        return ours != theirs

    # What differs in one epoch differs in all sums that have it in them.
    alike = bisect.bisect_left(range(1, first.length + 1), True, key=differ)
    if has_validation(other.config) and first.complete_from != other.complete_from:
        alike = min(alike, other.complete_from - 1)
    return alike
