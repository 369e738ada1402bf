"""Runs beside the first of several: on the same images, and paired by seed and subset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from engine.analysis.adjustment import offsets_of
from engine.analysis.blocks import Integers, Mask, argmax_with
from engine.analysis.comparison import (
    NOT_INDEPENDENT,
    accuracy_difference,
    disagreements,
    mcnemar,
    recall_differences,
)
from engine.analysis.groups import masks
from engine.analysis.stored_run import StoredRun
from engine.report.same_data import todays_names
from engine.report.statistics import paired_difference
from engine.tables.pairing import Paired, Scope, comparable, scope_of_pairs
from engine.training.metrics.groups import Limits

WAYS = ("as_is", "chosen")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a comparison needs of a run, without its probabilities.

    Attributes:
        about: the section ``run`` of its analysis.
        targets: (N,) labels of the test images.
        index: (N,) their positions in the data set's own list.
        predictions: (N,) by way: ``as_is``, and ``chosen`` at the tau that validation chose.
        balanced_accuracy: test number by way.
        groups: (N,) of the test images that belong together; None where none are known.
    """

    about: dict[str, Any]
    targets: Integers
    index: Integers
    predictions: dict[str, Integers]
    balanced_accuracy: dict[str, float]
    groups: Integers | None = None


def outcome_of(run: StoredRun, found: dict[str, Any]) -> Outcome:
    """Return what a comparison needs of a run and its analysis, in the order of the images."""
    section = found["logit_adjustment"]
    chosen = section["chosen"]
    taus = [run.tau] if chosen is None else [run.tau, chosen["tau"]]
    order = np.argsort(run.test.index, kind="stable")
    labels = argmax_with(run.test.log_probabilities, offsets_of(run.class_counts, np.array(taus)))
    ways = WAYS[: len(taus)]
    values = [section["as_is"]["balanced"]]
    values += [] if chosen is None else [chosen["test"]["balanced"]]
    return Outcome(
        found["run"],
        run.test.targets[order],
        run.test.index[order],
        dict(zip(ways, (row[order] for row in labels), strict=True)),
        dict(zip(ways, values, strict=True)),
        None if run.test.groups is None else run.test.groups[order],
    )


def compare(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Compare every run with the first on the same images, and two configs seed by seed.

    Runs on other test images than the first are left out of it, and named in ``strangers``.
    """
    first, *others = outcomes
    alike = [
        other
        for other in others
        if np.array_equal(first.index, other.index) and np.array_equal(first.targets, other.targets)
    ]
    return {
        "first": first.about,
        "pairs": [_pair(first, other) for other in alike],
        "seeds": _by_seed([first, *alike]),
        "strangers": [other.about["folder"] for other in others if other not in alike],
    }


def _pair(first: Outcome, other: Outcome) -> dict[str, Any]:
    """Compare two runs image by image, the models held."""
    ways = [way for way in WAYS if way in first.predictions and way in other.predictions]
    return {"run": other.about, "ways": {way: _on_images(first, other, way=way) for way in ways}}


def _on_images(first: Outcome, other: Outcome, *, way: str) -> dict[str, Any]:
    targets, counts = first.targets, np.array(first.about["class_counts"])
    mine, theirs = first.predictions[way], other.predictions[way]
    right, others = mine == targets, theirs == targets
    limits = Limits(first.about["many_above"], first.about["few_below"])
    differences = recall_differences(
        right, others, targets, masks=masks(counts, limits), groups=first.groups
    )
    differ = disagreements(mine, theirs, targets)
    most = int(np.nanargmax(differ))
    return {
        "mcnemar": _accuracy(right, others, groups=first.groups),
        "difference": {g: None if d is None else list(d) for g, d in differences.items()},
        "disagreement": float((mine != theirs).mean()),
        "most_disagreement": {
            "class": first.about["class_names"][most],
            "share": float(differ[most]),
        },
    }


def _accuracy(first: Mask, second: Mask, *, groups: Integers | None) -> dict[str, Any]:
    """Return what the two are right on, with McNemar's p; over groups with an interval instead."""
    found = asdict(mcnemar(first, second))
    if groups is None:
        return found
    interval = list(accuracy_difference(first, second, groups))[1:]
    return {**found, "p": None, "refused": NOT_INDEPENDENT, "accuracy_interval": interval}


def _by_seed(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """Pair two configs by seed and split; None unless there are two with seeds in common.

    What an interval speaks for, and what is averaged before, is decided as for a table.
    """
    groups = list(dict.fromkeys(outcome.about["group"] for outcome in outcomes))
    if len(groups) != 2:
        return None
    names = todays_names(
        (outcome.about["split_fingerprint"], outcome.about["former_fingerprints"])
        for outcome in outcomes
    )
    by_key: dict[str, dict[tuple[int, str], Outcome]] = {group: {} for group in groups}
    for outcome in outcomes:
        split = outcome.about["split_fingerprint"]
        key = outcome.about["seed"], names.get(split, split)
        by_key[outcome.about["group"]][key] = outcome
    one, two = (by_key[group] for group in groups)
    shared = [key for key in one if key in two]
    scope = scope_of_pairs(shared)
    ways = [w for w in WAYS if all(w in side[k].predictions for side in (one, two) for k in shared)]
    pairs = {
        way: comparable(
            [
                Paired(*k, two[k].balanced_accuracy[way], one[k].balanced_accuracy[way])
                for k in shared
            ],
            scope=scope,
        )
        for way in ways
    }
    if any(len(found) < 2 for found in pairs.values()):
        return None
    return {
        "first": next(iter(one.values())).about["folder"],
        "second": next(iter(two.values())).about["folder"],
        "unit": scope.unit,
        "scope": scope.text,
        "differences": {way: _difference(found, scope=scope) for way, found in pairs.items()},
    }


def _difference(pairs: Sequence[Paired], *, scope: Scope) -> dict[str, Any]:
    found = paired_difference(
        [pair.ours for pair in pairs],
        [pair.baseline for pair in pairs],
        clusters=[getattr(pair, scope.unit) for pair in pairs],
    )
    return asdict(found)
