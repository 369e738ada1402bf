"""Finished runs as pandas frames and NumPy arrays, for a notebook or a script of one's own.

Nothing here imports torch, but for the probabilities of a run, which its loss makes of the logits.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from engine.config.load import defaults, flatten, load_run_config
from engine.config.mistakes import ConfigError, nearest
from engine.config.schema import Config
from engine.report.predictions_file import read_predictions_file
from engine.report.run_folders import refuse_set_aside, run_folders
from engine.report.tracking import class_labels
from engine.training.files import read_json
from engine.training.metrics.rows import InBlocks, RowScores
from engine.training.provenance import finished_summary
from engine.training.run_folder import RunFolder
from engine.training.summary import Summary

Places = str | Path | Iterable[str | Path]
# Where a run is written to says nothing of it.
UNTOLD = ("track.", "data.download")


class Run(NamedTuple):
    """A finished run, as its folder describes it."""

    folder: Path
    config: Config
    summary: Summary
    environment: Mapping[str, Any]


def _print(line: str) -> None:
    print(line, file=sys.stderr)


def runs(
    where: Places = "runs/**", *, tested: bool = True, say: Callable[[str], None] = _print
) -> pd.DataFrame:
    """Return the finished runs below ``where``, a row each.

    The index is the run folder. Columns are ``title``, ``fingerprint``, ``group`` (the fingerprint
    without the seeds), every config key that differs between the runs (NaN where a run has no such
    key; a loss's own key also where it is not at its default), ``headline``, and for each selection
    rule ``<rule>/epoch``, ``<rule>/test/<metric>`` and, with validation, ``<rule>/val/<metric>``,
    NaN where undefined. The cost is ``seconds`` (of training), ``epochs``, ``device`` and
    ``threads``.

    A folder that holds no whole, finished run is left out: ``say`` is told which and why, and
    ``frame.attrs["left_out"]`` keeps the reasons by folder.

    Args:
        where: folders, which are searched with all folders in them, or patterns such as
            ``runs/digits*``; one of them or several.
        tested: leave out runs that never looked at test, such as the trials of a search.
        say: called with a line for each folder that is left out.

    Raises:
        ConfigError: there is no run folder at all.
    """
    places = [where] if isinstance(where, str | Path) else list(where)
    folders = run_folders(places)
    if not folders:
        raise ConfigError([f"{', '.join(map(str, places))}: no run folder there"])
    found, left_out = [], {}
    for folder in folders:
        try:
            found.append(read_run(folder, tested=tested))
        except ConfigError as error:
            left_out[str(folder)] = error.mistakes[0]
            say(f"left out: {error.mistakes[0]}")
    differing = _differing([run.config for run in found])
    records = [
        {**_identity(run), **keys, **_results(run.summary), **_cost(run)}
        for run, keys in zip(found, differing, strict=True)
    ]
    index = pd.Index([str(run.folder) for run in found], name="run")
    frame = pd.DataFrame(records, index=index)
    frame.attrs["left_out"] = left_out
    return frame


def rows(run: str | Path, *, classes: bool = False) -> pd.DataFrame:
    """Return the metrics of a run by epoch, of one that is still training those it has.

    The index is the epoch, from 1; a column is a key of ``metrics.jsonl``, such as
    ``val/balanced_accuracy``, NaN where it is undefined.

    Args:
        run: the run folder.
        classes: also each number of a class, as ``val/recall/003_cat``.

    Raises:
        ConfigError: the folder has no line of metrics.
    """
    folder = RunFolder(Path(run).expanduser())
    lines = folder.rows()
    if not lines:
        raise ConfigError([f"{folder.metrics}: has no finished epoch; is {run} a run folder?"])
    labels = class_labels(class_names(folder)) if classes else []
    frame = pd.DataFrame([dict(_scalars(line, labels)) for line in lines])
    frame = frame.set_index("epoch")
    return frame.astype({name: float for name in frame if frame[name].dtype == object})


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a run said of the N images of a split, with C classes.

    Attributes:
        run: the run folder.
        split: ``test`` or ``val``.
        rule: the selection rule whose weights answered.
        logits: (N, C) float32; of a binary run with one output (0, x). Where they are many, a
            memory map of their file.
        targets: (N,) labels.
        index: (N,) positions of the images in the data set's own list: the same image has the same
            number in every run on this data set.
        class_names: C names in label order.
        class_counts: (C,) training images.
    """

    run: Path
    split: str
    rule: str
    logits: np.ndarray
    targets: np.ndarray
    index: np.ndarray
    class_names: tuple[str, ...]
    class_counts: np.ndarray

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Return what the run made of its logits, (N, C) float64, rows that sum to one.

        By the run's own loss, over the classes that it may predict, with
        ``evaluate.logit_adjustment`` where it is set. This imports torch. ``rows`` has what tables
        and figures take of them, without N x C numbers in memory.
        """
        return self._in_blocks().whole()

    @cached_property
    def rows(self) -> RowScores:
        """Return, for each image, the class predicted, its probability and that of the true one."""
        return RowScores.of(self._in_blocks(), self.targets)

    def _in_blocks(self) -> InBlocks:
        from engine.training.facts import read_facts
        from engine.training.probabilities import Probabilities
        from engine.training.trained import readout_of

        config = load_run_config(self.run, check_named_runs=False)
        facts = read_facts(self.run)
        readout = readout_of(config, facts)
        return Probabilities(self.logits, readout, is_single=facts["num_outputs"] == 1)

    def frame(self) -> pd.DataFrame:
        """Return a row an image: its classes by name, and the probabilities of both.

        The index is ``index``; columns are ``true``, ``predicted``, ``probability`` (of the
        predicted class) and ``probability_of_true``.
        """
        names, rows = np.array(self.class_names, dtype=object), self.rows
        return pd.DataFrame(
            {
                "true": names[self.targets],
                "predicted": names[rows.predictions],
                "probability": rows.confidence,
                "probability_of_true": rows.of_true,
            },
            index=pd.Index(self.index, name="index"),
        )


def predictions(
    run: str | Path, *, split: Literal["test", "val"] = "test", rule: str | None = None
) -> Predictions:
    """Return what a run stored of its predictions of a split.

    Args:
        run: the run folder.
        split: ``test`` or ``val``.
        rule: the selection rule; None takes that of the headline.

    Raises:
        ConfigError: the run is not finished, has no such predictions, or its file is damaged.
    """
    folder = RunFolder(Path(run).expanduser())
    rule = rule or _summary(folder, tested=False).headline
    path = folder.predictions / f"{split}.{rule}.npz"
    if not path.is_file():
        there = sorted(p.stem for p in folder.predictions.glob("*.npz"))
        raise ConfigError(
            [f"{path}: no such predictions{nearest(path.stem, there)}; there are {_listed(there)}"]
        )
    stored = read_predictions_file(path)
    facts = _facts(folder)
    names, counts = tuple(facts["class_names"]), np.array(facts["class_counts"])
    return Predictions(
        *(folder.path, split, rule),
        logits=stored.logits,
        targets=stored.targets,
        index=stored.index,
        class_names=names,
        class_counts=counts,
    )


def read_run(folder: Path, *, tested: bool = True) -> Run:
    """Return what a folder says of its finished run.

    Args:
        folder: the run folder.
        tested: whether the run must have looked at test.

    Raises:
        ConfigError: it is not finished, was set aside, or one of its files is missing or damaged.
    """
    place = RunFolder(folder)
    refuse_set_aside(folder)
    if not place.config.is_file():
        raise ConfigError([f"{folder}: is not a run folder: it has no config.yaml"])
    summary = _summary(place, tested=tested)
    try:
        config = load_run_config(folder, check_named_runs=False)
    except ConfigError as error:
        raise ConfigError([f"{folder}: {error.mistakes[0]}"]) from error
    environment = _environment(place)
    return Run(folder, config, summary, environment)


def class_names(folder: RunFolder) -> list[str]:
    """Return the classes of a run in label order.

    Raises:
        ConfigError: environment.json is missing, damaged or too old to have them.
    """
    return list(_facts(folder)["class_names"])


def _summary(place: RunFolder, *, tested: bool) -> Summary:
    summary = finished_summary(place, test=tested)
    if summary is not None:
        return summary
    if place.validation.is_file():
        raise ConfigError([f"{place.path}: never looked at test, as a trial of a search"])
    epochs = len(place.rows())
    raise ConfigError([f"{place.path}: is not finished, after {epochs} epochs"])


def _environment(place: RunFolder) -> Mapping[str, Any]:
    found = read_json(place.environment) or {}
    segments = found.get("segments")
    if not isinstance(segments, list) or not segments or not isinstance(segments[-1], dict):
        raise ConfigError([f"{place.environment}: is missing, damaged or older than this version"])
    return found


def _facts(place: RunFolder) -> Mapping[str, Any]:
    facts = _environment(place).get("facts")
    if not isinstance(facts, dict) or not {"class_names", "class_counts"} <= facts.keys():
        raise ConfigError([f"{place.environment}: is older than this version: names no classes"])
    return facts


def _identity(run: Run) -> dict[str, str]:
    summary = run.summary
    return {"title": summary.title, "fingerprint": summary.fingerprint, "group": summary.group}


def _differing(configs: Sequence[Config]) -> list[dict[str, Any]]:
    """Return the keys of each config that set it apart from others, in the order of the tree.

    A key that only some have, as a loss's own, counts where it is not the same in these, or is not
    at its default.
    """
    values = [_hashable(flatten(config)) for config in configs]
    usual = [_hashable(defaults(config)) for config in configs]
    kept = []
    for key in dict.fromkeys(key for found in values for key in found):
        having = [number for number, found in enumerate(values) if key in found]
        is_same = len({values[number][key] for number in having}) == 1
        is_usual = all(values[number][key] == usual[number][key] for number in having)
        if not key.startswith(UNTOLD) and not (
            is_same and (len(having) == len(values) or is_usual)
        ):
            kept.append(key)
    return [{key: found.get(key, np.nan) for key in kept} for found in values]


def _hashable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return values that pandas can group by."""
    return {key: _cell(value) for key, value in config.items()}


def _cell(value: Any) -> Any:
    """Return a list as a tuple, and a mapping or what holds others as JSON."""
    is_nested = isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(inner, list | dict) for inner in value)
    )
    if is_nested:
        return json.dumps(value)
    return tuple(value) if isinstance(value, list) else value


def _results(summary: Summary) -> dict[str, Any]:
    found: dict[str, Any] = {"headline": summary.headline}
    for rule, result in summary.rules.items():
        found[f"{rule}/epoch"] = result.epoch
        for split, scalars in (("test", result.test), ("val", result.val or {})):
            found |= {f"{rule}/{split}/{k}": _number(value) for k, value in scalars.items()}
    return found


def _cost(run: Run) -> dict[str, Any]:
    segment = run.environment["segments"][-1]
    return {
        "seconds": run.summary.time.get("training_seconds", np.nan),
        "epochs": len(RunFolder(run.folder).rows()),
        "device": segment.get("device"),
        "threads": segment.get("threads"),
    }


def _scalars(line: Mapping[str, Any], labels: list[str]) -> Iterator[tuple[str, Any]]:
    for key, value in line.items():
        if not isinstance(value, list):
            yield key, value
        elif len(value) == len(labels):
            yield from ((f"{key}/{label}", v) for label, v in zip(labels, value, strict=True))


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "none"
