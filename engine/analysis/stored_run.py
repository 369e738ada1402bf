"""The stored predictions of a finished run, as log-probabilities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ValidationError

from engine.analysis.adjustment import offsets_of
from engine.analysis.blocks import Floats, Integers, Mask, blocks
from engine.analysis.groups import masks
from engine.analysis.readout import Readout, log_softmax, readout_of
from engine.config.load import load_run_config
from engine.config.mistakes import ConfigError, nearest
from engine.config.schema import Config
from engine.report.predictions_file import (
    ClassifierFile,
    PredictionsFile,
    read_classifier_file,
    read_features_file,
    read_predictions_file,
)
from engine.training.facts import read_facts
from engine.training.files import read_json
from engine.training.logits import rows_of
from engine.training.metrics.groups import Limits
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
        groups: (N,) group of each image; None where none are known, or none has two images here.
    """

    log_probabilities: Floats
    targets: Integers
    index: Integers
    groups: Integers | None = None

    @property
    def num_groups(self) -> int | None:
        """Groups of images that belong together; None where images are independent."""
        return None if self.groups is None else len(np.unique(self.groups))


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
        num_outputs: logits of its model; of one, x, (0, x) is stored.
    """

    folder: Path
    config: Config
    summary: Summary
    rule: str
    class_names: tuple[str, ...]
    class_counts: Integers
    test: Part
    val: Part | None
    num_outputs: int = 2

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

    def logits(self, split: SplitName) -> Floats:
        """Return the stored logits (N, C) of a split, read anew."""
        return _predictions(self._file(f"{split}.{self.rule}.npz")).logits

    def features(self, split: SplitName) -> Floats:
        """Return the stored features (N, D) of a split.

        Raises:
            ConfigError: they are missing or damaged.
        """
        file = self._file(f"{split}.{self.rule}.features.npy")
        try:
            return read_features_file(file)
        except FileNotFoundError as error:
            raise _missing(file) from error

    @cached_property
    def classifier(self) -> ClassifierFile | None:
        """Class means and the head's weights; None where the run did not keep its features.

        Raises:
            ConfigError: they are damaged.
        """
        try:
            return read_classifier_file(self._file(f"classifier.{self.rule}.npz"))
        except FileNotFoundError:
            return None

    def _file(self, name: str) -> Path:
        return self.folder / "predictions" / name

    def _evaluated(self, part: Part) -> Floats:
        if self.tau == 0:
            return part.log_probabilities
        shift = offsets_of(self.class_counts, np.array([self.tau]))[0]
        found = np.empty_like(part.log_probabilities)
        for rows in blocks(found):
            found[rows] = log_softmax(part.log_probabilities[rows] + shift)
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
    readout = readout_of(config, facts)

    def part(split: SplitName) -> Part:
        return _read(folder / "predictions" / f"{split}.{rule}.npz", readout)

    return StoredRun(
        folder=folder,
        config=config,
        summary=summary,
        rule=rule,
        class_names=class_names,
        class_counts=class_counts,
        test=part("test"),
        val=None if summary.rules[rule].val is None else part("val"),
        num_outputs=facts["num_outputs"],
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


def _predictions(file: Path) -> PredictionsFile:
    try:
        return read_predictions_file(file)
    except FileNotFoundError as error:
        raise _missing(file) from error


def _read(file: Path, readout: Readout) -> Part:
    stored = _predictions(file)
    logits = stored.logits
    kind = np.float64 if logits.size <= DOUBLE_ENTRIES else np.float32
    found = np.empty(logits.shape, dtype=kind)
    for rows in blocks(logits):
        found[rows] = readout(rows_of(logits, rows))
    targets, index = stored.targets.astype(np.int64), stored.index.astype(np.int64)
    return Part(found, targets, index, _together(stored.groups))


def _together(groups: Integers | None) -> Integers | None:
    """Return groups (N,), or None where no two images are of one."""
    if groups is None or len(np.unique(groups)) == len(groups):
        return None
    return groups.astype(np.int64)
