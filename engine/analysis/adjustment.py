"""Logit adjustment after training: accuracy against tau, and the tau that validation chooses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.analysis.blocks import (
    Doubles,
    Floats,
    Integers,
    argmax_along,
    check,
    mean_where,
    recalls,
)
from engine.training.metrics.groups import USUAL, Limits, few_shot_groups

TAUS = np.linspace(-1, 3, 81)
"""Strengths that are tried. Below 0 the head is helped: a balanced loss may have overdone it."""


@dataclass(frozen=True, eq=False)
class TauCurve:
    """Accuracy on one split against the strength of the adjustment.

    Attributes:
        taus: (T,) strengths, in increasing order.
        recall: (T, C) recall of each class, NaN for one without images.
        class_counts: (C,) training images.
        limits: How many of them are many and few.
    """

    taus: Doubles
    recall: Doubles
    class_counts: Integers
    limits: Limits = USUAL

    def of(self, group: str) -> list[float | None]:
        """Return the mean recall at each tau of ``balanced`` (all), many, medium or few classes.

        None stands for a group without classes that have images.
        """
        masks = few_shot_groups(self.class_counts, self.limits)
        mask = masks.get(group, np.ones(len(self.class_counts), dtype=bool))
        return [mean_where(row, mask) for row in self.recall]

    def best(self) -> int:
        """Return the position of the highest balanced accuracy.

        On a tie the tau nearest to 0 wins: it changes the least.
        """
        values = np.nanmean(self.recall, axis=1)
        ties = np.flatnonzero(values >= values.max() - 1e-12)
        return int(ties[np.abs(self.taus[ties]).argmin()])

    def at(self, tau: float) -> int:
        """Return the position of a tau."""
        return int(np.abs(self.taus - tau).argmin())


def offsets_of(class_counts: Integers, taus: Doubles) -> Doubles:
    """Return what is added to log-probabilities, (T, C): -tau log(share of the training images).

    Menon et al. (2021), "Long-tail learning via logit adjustment", equation 9. A class without
    training images gets 0, as in ``evaluate.logit_adjustment``.
    """
    counts = class_counts.astype(np.float64)
    logs = np.zeros(len(counts))
    np.log(counts / counts.sum(), out=logs, where=counts > 0)
    return -taus[:, None] * logs


def tau_curve(
    logits: Floats,
    targets: Integers,
    class_counts: Integers,
    *,
    taus: Doubles = TAUS,
    limits: Limits = USUAL,
) -> TauCurve:
    """Evaluate post-hoc logit adjustment at every tau.

    Args:
        logits: (N, C) log-probabilities, not adjusted yet.
        targets: (N,) labels.
        class_counts: (C,) training images: the prior that is taken out.
        taus: (T,) strengths in order; 1 is the theory's for a cross-entropy model and balanced
            accuracy.
        limits: How many training images are many and few.
    """
    check(logits, targets, class_counts)
    num_classes = logits.shape[1]
    predicted = argmax_along(logits, offsets_of(class_counts, taus))
    recall = np.stack([recalls(targets, row, num_classes=num_classes) for row in predicted])
    return TauCurve(taus, recall, class_counts, limits)
