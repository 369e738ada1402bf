"""How a run would fare were the test classes as frequent as otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from operator import attrgetter
from typing import Any, Literal

import numpy as np

from engine.analysis import priors, scaling
from engine.analysis.blocks import (
    Doubles,
    Integers,
    argmax_with,
    recalls,
    shares,
)
from engine.analysis.groups import REFUSED
from engine.analysis.stored_run import StoredRun
from engine.config import choices, components
from engine.config.schema import Config

DIRECTIONS: tuple[Literal["forward", "backward"], ...] = ("forward", "backward")
SHIFT_FACTOR = 50

Section = dict[str, Any]


def prior_section(run: StoredRun) -> Section:
    """Return accuracy under long tails of the test set, as is and with the prior known."""
    counts, targets = run.class_counts, run.test.targets
    cases = _test_priors(counts)
    source = shares(counts)
    images = np.bincount(targets, minlength=len(counts))
    offsets = np.stack([np.log(prior) - np.log(source) for prior in cases.values()])
    corrected = argmax_with(run.test.log_probabilities, offsets)
    as_is = run.evaluated_test.argmax(axis=1)

    def accuracy(labels: Integers, prior: Doubles) -> Section:
        recall = recalls(targets, labels, num_classes=len(counts))
        groups, residuals = run.test.groups, None
        if groups is not None:
            residuals = priors.residuals_of(labels == targets, recall, targets, groups)
        return asdict(priors.accuracy_under(recall, images, prior, residuals=residuals))

    rows = [
        {"prior": name, "as_is": accuracy(as_is, prior), "known": accuracy(labels, prior)}
        for (name, prior), labels in zip(cases.items(), corrected, strict=True)
    ]
    return {**_source(run), "rows": rows}


def _source(run: StoredRun) -> Section:
    """Return the prior that is assumed, and what in the run's training has changed it, if any."""
    return {
        "assumed_source": "shares of the training images",
        "balanced_by": balanced_by(run.config),
    }


def balanced_by(config: Config) -> str | None:
    """Return which key makes training weigh classes otherwise than their images; None if none does.

    The probabilities of such a run carry another prior than that of its training images.
    """
    if "class_counts" in components.read("losses", config.loss.name).facts:
        return f"loss={config.loss.name}"
    for key, given in config.loss.model_dump().items():
        # A number for each class, as a list or by the classes' names.
        values = given.values() if isinstance(given, dict) else given
        if isinstance(given, tuple | dict) and any(value != 1 for value in values):
            return f"loss.{key}"
    for selector in ("reweight.scheme", "sampler.name"):
        choice = choices.of(selector)
        name = attrgetter(selector)(config)
        if name != choice.default:
            return f"{choice.section}={name}"
    return None


def _test_priors(class_counts: Integers) -> dict[str, Doubles]:
    """Return priors from the most forward to the most backward long tail."""
    num_classes = len(class_counts)
    forward, backward = (
        {
            f"{direction} {factor}": priors.long_tailed_prior(
                class_counts, factor=factor, direction=direction
            )
            for factor in factors
        }
        for direction, factors in zip(
            DIRECTIONS, (priors.FACTORS[::-1], priors.FACTORS), strict=True
        )
    )
    return {**forward, "uniform": np.full(num_classes, 1 / num_classes), **backward}


def shift_section(run: StoredRun) -> Section:
    """Estimate the prior of the test split, as it is and weighted, from its unlabelled images."""
    counts, targets = run.class_counts, run.test.targets
    num_classes, source = len(counts), shares(counts)
    logits, held_out = run.test.log_probabilities, None
    found: Section = {**_source(run), "rows": []}
    if run.val is not None:
        # Weighted so that validation is what the probabilities are for: images as in training.
        images = np.bincount(run.val.targets, minlength=num_classes)
        weights = (source / np.maximum(images, 1))[run.val.targets]
        fitted = scaling.temperature(
            run.val.log_probabilities, run.val.targets, weights=weights * len(run.val.targets)
        )
        logits = logits * np.asarray(fitted.factor[0], dtype=logits.dtype)
        held_out = run.val.log_probabilities.argmax(axis=1)
        found["temperature"] = float(1 / fitted.factor[0])
    else:
        found["refused"] = f"BBSE and a temperature: {REFUSED}"
    truths = _shifts(counts, targets)
    images = np.bincount(targets, minlength=num_classes)
    weights = np.stack([(p / np.maximum(images, 1))[targets] for p in truths.values()])
    by_em = priors.estimate_by_em(logits, source, weights=weights)
    predicted = logits.argmax(axis=1)
    own = recalls(targets, predicted, num_classes=num_classes)
    for number, (name, truth) in enumerate(truths.items()):
        estimates = {"em": by_em.prior[number]}
        if run.val is not None and held_out is not None:
            seen = np.bincount(predicted, weights[number], minlength=num_classes).astype(float)
            estimates["bbse"] = priors.estimate_by_confusion(
                held_out, run.val.targets, seen, source_prior=source
            )
        row: Section = {
            "prior": name,
            "true": truth.tolist(),
            "accuracy": {"as_is": priors.accuracy_under(own, images, truth).value},
            "estimates": {},
        }
        for way, estimate in {**estimates, "true": truth}.items():
            recall = priors.shifted(logits, targets, source=source, target=estimate)
            row["accuracy"][way] = priors.accuracy_under(recall, images, truth).value
        for way, estimate in estimates.items():
            distance = float(np.abs(estimate - truth).sum()) / 2
            row["estimates"][way] = {"prior": estimate.tolist(), "total_variation": distance}
        row["estimates"]["em"] |= {
            "iterations": int(by_em.iterations[number]),
            "has_converged": bool(by_em.has_converged[number]),
        }
        found["rows"].append(row)
    return found


def _shifts(class_counts: Integers, targets: Integers) -> Mapping[str, Doubles]:
    """Return the priors that are estimated: of the test split, and long-tailed both ways."""
    images = np.bincount(targets, minlength=len(class_counts))
    found = {"test split": images / images.sum()}
    for direction in DIRECTIONS:
        prior = priors.long_tailed_prior(class_counts, factor=SHIFT_FACTOR, direction=direction)
        prior = np.where(images > 0, prior, 0)
        found[f"{direction} {SHIFT_FACTOR}"] = prior / prior.sum()
    return found
