"""The stored predictions of a finished run, as log-probabilities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import ValidationError

import losses
from engine.analysis.blocks import Floats, Integers, Mask, blocks
from engine.analysis.groups import masks
from engine.config.load import load_run_config
from engine.config.mistakes import ConfigError, nearest
from engine.config.schema import Config, component_keys
from engine.report.predictions_file import read_predictions_file
from engine.training.facts import read_facts
from engine.training.files import read_json
from engine.training.logits import rows_of
from engine.training.metrics.groups import Limits
from engine.training.probabilities import PredictsProbabilities, adjustment
from engine.training.run_folder import RunFolder
from engine.training.summary import Summary

DOUBLE_ENTRIES = 20_000_000
"""Up to so many log-probabilities are kept in double precision, beyond in single: 4 bytes each."""

SplitName = Literal["val", "test"]


@dataclass(frozen=True, eq=False)
class Part:
    """Predictions of one split.

    Attributes:
        log_probabilities: (N, C), by the loss's own way from logits to probabilities, without
            ``evaluate.logit_adjustment``.
        targets: (N,) labels.
        index: (N,) position of each image in the data set's own list.
    """

    log_probabilities: Floats
    targets: Integers
    index: Integers


@dataclass(frozen=True, eq=False)
class StoredRun:
    """A finished run and what it predicted by one selection rule.

    Attributes:
        folder: the run folder.
        config: of the run.
        summary: the content of summary.json.
        rule: whose predictions these are.
        class_names: in label order.
        class_counts: (C,) training images.
        test: the test split.
        val: the validation split, None without.
    """

    folder: Path
    config: Config
    summary: Summary
    rule: str
    class_names: tuple[str, ...]
    class_counts: Integers
    test: Part
    val: Part | None

    @property
    def tau(self) -> float:
        """The run's own ``evaluate.logit_adjustment``."""
        return self.config.evaluate.logit_adjustment

    @property
    def limits(self) -> Limits:
        """How many training images are many and few."""
        evaluate = self.config.evaluate
        return Limits(evaluate.many_above, evaluate.few_below)

    @cached_property
    def masks(self) -> dict[str, Mask]:
        """(C,) by group: all classes as ``balanced``, then many, medium and few."""
        return masks(self.class_counts, self.limits)

    @cached_property
    def evaluated_test(self) -> Floats:
        """(N, C) log-probabilities of test as the run itself evaluated them."""
        return self._evaluated(self.test)

    @cached_property
    def evaluated_val(self) -> Floats | None:
        """The same of validation."""
        return None if self.val is None else self._evaluated(self.val)

    def _evaluated(self, part: Part) -> Floats:
        shift = adjustment(torch.from_numpy(self.class_counts), tau=self.tau)
        if shift is None:
            return part.log_probabilities
        found = part.log_probabilities + shift.numpy().astype(part.log_probabilities.dtype)
        for rows in blocks(found):
            top = found[rows].max(axis=1, keepdims=True)
            found[rows] -= top
            found[rows] -= np.log(np.exp(found[rows]).sum(axis=1, keepdims=True))
        return found


def read_stored_run(folder: Path, *, rule: str | None = None) -> StoredRun:
    """Read the predictions of a finished run.

    Args:
        folder: the run folder.
        rule: the selection rule whose predictions are read; None takes that of the headline.

    Raises:
        ConfigError: no run, not finished, no such rule, a damaged file, or a run that may not
            predict all of its classes.
    """
    folder = folder.expanduser()
    config = load_run_config(folder, check_named_runs=False)
    summary = read_summary(folder)
    rule = _rule(summary, folder, rule=rule)
    facts = read_facts(folder)
    class_names, class_counts = tuple(facts["class_names"]), np.array(facts["class_counts"])
    if len(facts["predicted_classes"]) < len(class_names):
        raise ConfigError(
            [f"{folder}: predicts only some of its classes; expected a run that predicts all"]
        )
    loss = losses.build(
        config.loss.name,
        component_keys(config.loss),
        class_counts=torch.from_numpy(class_counts),
        old_classes=facts["taught_classes"] or None,
    )
    is_single = facts["num_outputs"] == 1

    def part(split: SplitName) -> Part:
        file = folder / "predictions" / f"{split}.{rule}.npz"
        return _read(file, loss, is_single=is_single)

    return StoredRun(
        folder=folder,
        config=config,
        summary=summary,
        rule=rule,
        class_names=class_names,
        class_counts=class_counts,
        test=part("test"),
        val=None if summary.rules[rule].val is None else part("val"),
    )


def check_stored_run(folder: Path, *, rule: str | None = None) -> None:
    """Refuse a run that :func:`read_stored_run` would, as far as a glance at its files tells.

    Raises:
        ConfigError: no run, not finished, no such rule, or no predictions.
    """
    folder = folder.expanduser()
    load_run_config(folder, check_named_runs=False)
    chosen = _rule(read_summary(folder), folder, rule=rule)
    file = folder / "predictions" / f"test.{chosen}.npz"
    if not file.is_file():
        raise _missing(file)


def has_validation(folder: Path, *, rule: str | None = None) -> bool:
    """Return whether a run that :func:`check_stored_run` lets pass has a validation split."""
    summary = read_summary(folder)
    return summary.rules[_rule(summary, folder, rule=rule)].val is not None


def check_alpha(alpha: float, folders: Iterable[Path], *, rule: str | None = None) -> None:
    """Refuse a share for prediction sets where no run has the images to make them from.

    Raises:
        ConfigError: none of the runs has a validation split, or one is not finished.
    """
    if not any(has_validation(folder.expanduser(), rule=rule) for folder in folders):
        raise ConfigError(
            [f"--alpha {alpha:g}: has no effect: prediction sets need a validation split"]
        )


def _rule(summary: Summary, folder: Path, *, rule: str | None) -> str:
    """Return the rule that is asked for, that of the headline by default."""
    rule = rule or summary.headline
    if rule not in summary.rules:
        hint = nearest(rule, summary.rules)
        kept = ", ".join(summary.rules)
        raise ConfigError([f"--rule {rule}: {folder} has no such rule{hint}; it has {kept}"])
    return rule


def _missing(file: Path) -> ConfigError:
    return ConfigError([f"{file}: is missing; put it back, or train again"])


def read_summary(folder: Path) -> Summary:
    """Return the summary of a finished run.

    Raises:
        ConfigError: the run is not finished, never looked at test, or the file is damaged.
    """
    file = RunFolder(folder).summary
    content = read_json(file)
    if content is None:
        has_trained = RunFolder(folder).validation.exists()
        why = "it left test alone, as runs of a search do" if has_trained else "is not finished"
        raise ConfigError([f"{folder}: {why}; run its config.yaml with train.py first"])
    try:
        return Summary.model_validate(content)
    except ValidationError as error:
        raise ConfigError([f"{file}: not a summary of this version"]) from error


def _read(file: Path, loss: PredictsProbabilities, *, is_single: bool) -> Part:
    """Read one file; ``is_single`` for a model of one output, which is stored as (0, x)."""
    try:
        stored = read_predictions_file(file)
    except FileNotFoundError as error:
        raise _missing(file) from error
    logits, targets, index = stored.logits, stored.targets, stored.index
    kind = np.float64 if logits.size <= DOUBLE_ENTRIES else np.float32
    found = np.empty(logits.shape, dtype=kind)
    for rows in blocks(logits):
        block = torch.from_numpy(rows_of(logits, rows))
        probabilities = loss.predict(block[:, 1:] if is_single else block).numpy()
        # What underflowed is raised to the smallest normal number: logarithms stay finite.
        found[rows] = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return Part(found, targets.astype(np.int64), index.astype(np.int64))
