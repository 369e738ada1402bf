"""The catalogue of metrics: one function a metric, and all that is known of it in its first line.

``@metric(heading, better=..., needs=..., column=...)`` is read from the source by
:mod:`engine.config.metrics`, so that ``--help`` and a search file know every metric without an
import. A function added here can choose epochs, is written to metrics.jsonl, W&B and summary.json,
and stands in the tables.

``heading`` is its name in words; ``better`` is ``max`` or ``min``; ``column`` is its heading in
the tables of :mod:`engine.tables`, None to leave it to ``--columns``; ``share=False`` keeps a table
from printing it as a percentage. ``needs`` says what it cannot
do without, and then it is only there where that is given:

* ``ranking``: a sort of every class's probabilities, made each epoch only where asked for;
* ``six_classes``, ``two_classes``, ``old_classes``, ``threshold``: facts of the task.

The metrics of a task of a certain kind choose no epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from engine.training.metrics.calibration import mean_brier, mean_nll
from engine.training.metrics.ranking import f1_at_threshold as f1_from
from engine.training.metrics.ranking import share_within
from engine.training.metrics.scored import Scored

Function = Callable[[Scored], float | None]
Needs = Literal["ranking", "six_classes", "two_classes", "old_classes", "threshold"]

CATALOGUE: dict[str, Function] = {}


def metric(
    heading: str,  # noqa: ARG001 - read from the source, as are those that follow
    *,
    better: Literal["max", "min"],  # noqa: ARG001
    needs: Needs | None = None,  # noqa: ARG001
    share: bool = True,  # noqa: ARG001
    column: str | None = None,  # noqa: ARG001
) -> Callable[[Function], Function]:
    """Add a function to the catalogue; see the module's text."""

    def added(function: Function) -> Function:
        CATALOGUE[function.__name__] = function
        return function

    return added


@metric("balanced accuracy", better="max", column="balanced")
def balanced_accuracy(scored: Scored) -> float | None:
    """Mean of the per-class recalls."""
    return _mean(scored.recall)


@metric("accuracy", better="max", column="overall")
def accuracy(scored: Scored) -> float | None:
    """Share of images whose arg max is right; the lowest index wins a tie."""
    return float((scored.predictions == scored.targets).mean())


@metric("top-5 accuracy", better="max", needs="six_classes")
def top5_accuracy(scored: Scored) -> float | None:
    """Share of images whose class is among the five most probable, where C > 5."""
    return share_within(scored.rows.num_ahead, k=5)


@metric("many", better="max", column="many")
def many_accuracy(scored: Scored) -> float | None:
    """Mean recall of the classes with many training images."""
    return _mean(scored.recall[scored.groups["many"]])


@metric("medium", better="max", column="medium")
def medium_accuracy(scored: Scored) -> float | None:
    """Mean recall of the classes between many and few."""
    return _mean(scored.recall[scored.groups["medium"]])


@metric("few", better="max", column="few")
def few_accuracy(scored: Scored) -> float | None:
    """Mean recall of the classes with few training images."""
    return _mean(scored.recall[scored.groups["few"]])


@metric("old classes", better="max", needs="old_classes")
def old_accuracy(scored: Scored) -> float | None:
    """Mean recall of the classes that an earlier run learnt."""
    return _mean(scored.recall[scored.groups["old"]])


@metric("new classes", better="max", needs="old_classes")
def new_accuracy(scored: Scored) -> float | None:
    """Mean recall of the classes that no earlier run learnt."""
    return _mean(scored.recall[scored.groups["new"]])


@metric("worst class", better="max", column="worst class")
def worst_class_recall(scored: Scored) -> float | None:
    """Smallest of the per-class recalls."""
    return float(scored.recall[~np.isnan(scored.recall)].min())


@metric("geometric mean", better="max")
def geometric_mean(scored: Scored) -> float | None:
    """Geometric mean of the per-class recalls, 0 where one is 0 (Kubat and Matwin, 1997)."""
    tested = scored.recall[~np.isnan(scored.recall)]
    return float(np.exp(np.log(tested).mean())) if tested.all() else 0.0


@metric("macro F1", better="max")
def macro_f1(scored: Scored) -> float | None:
    """Mean F1 of the classes in the targets or the predictions, as scikit-learn's macro average."""
    return _mean(scored.outcomes.per_class.f1)


@metric("MCC", better="max", share=False)
def mcc(scored: Scored) -> float | None:
    """Matthews correlation coefficient in [-1, 1] (Gorodkin, 2004)."""
    return scored.outcomes.mcc


@metric("AUROC", better="max", needs="ranking")
def auroc(scored: Scored) -> float | None:
    """Area under the ROC curve: of class 1 where C = 2, else the mean of one class vs. the rest."""
    return scored.ranking.auroc


@metric("average precision", better="max", needs="ranking")
def average_precision(scored: Scored) -> float | None:
    """Average precision: of class 1 where C = 2, else the mean of one class vs. the rest."""
    return scored.ranking.average_precision


@metric("F1 at 0.5", better="max", needs="two_classes")
def f1(scored: Scored) -> float | None:
    """F1 of class 1 by the arg max."""
    return _mean(scored.outcomes.per_class.f1[1:])


@metric("F1 at the validation threshold", better="max", needs="threshold")
def f1_at_threshold(scored: Scored) -> float | None:
    """F1 of class 1 from a threshold on, found on validation at the data set's class shares."""
    assert scored.threshold is not None
    return f1_from(scored.probabilities, scored.targets, threshold=scored.threshold)


@metric("NLL", better="min", share=False, column="NLL")
def nll(scored: Scored) -> float | None:
    """Mean negative log likelihood of the true class, in nats."""
    return mean_nll(scored.rows.of_true)


@metric("Brier score", better="min", share=False)
def brier(scored: Scored) -> float | None:
    """Mean squared distance between the probabilities and the true class (0 to 2)."""
    return mean_brier(scored.rows.squares, scored.rows.of_true)


@metric("ECE", better="min", column="ECE")
def ece(scored: Scored) -> float | None:
    """ECE, the calibration error of the top probability, in 15 bins of equal width."""
    return scored.rows.reliability(scored.targets).ece


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    """Return the mean of the values that are defined; None where none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None
