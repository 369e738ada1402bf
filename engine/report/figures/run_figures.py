"""The figures of a run, drawn and written together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.report import figures
from engine.report.figures.style import illegible
from engine.training.evaluation import Assessment


def draw_figures(
    folder: Path,
    test: Assessment,
    *,
    class_counts: np.ndarray,
    class_names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    best_epoch: int | None,
    data_title: str,
    rule: str,
    say: Callable[[str], None],
) -> dict[str, Path]:
    """Draw the figures of a run as PNG and PDF; return the PNGs by name.

    Args:
        folder: Where they are written.
        test: Predictions on test by the headline's rule, and their metrics.
        class_counts: (C,) training images.
        class_names: C names.
        rows: The lines of metrics.jsonl.
        best_epoch: Marked in the curves; None marks none.
        data_title: Of the data set, for the titles.
        rule: The headline's selection rule, for the titles.
        say: Called with one line where names have letters that no font here has.
    """
    targets, title = test.predictions.targets, f"{data_title}, test, rule {rule}"
    shown = np.flatnonzero((class_counts > 0) | (test.metrics.per_class.support > 0))
    counts, names = class_counts[shown], [class_names[label] for label in shown.tolist()]
    if lacking := illegible([*names, data_title]):
        say(
            f"figures: no font here has {lacking[:10]}, which become boxes; install one, such as "
            "Noto Sans CJK"
        )
    drawn = {
        "recall_by_class_count": figures.recall_by_class_count(
            test.metrics.per_class.recall[shown], counts, names, title=title
        ),
        "reliability": figures.reliability_diagram(test.probabilities, targets, title=title),
        "curves": figures.learning_curves(rows, best_epoch=best_epoch, title=data_title),
    }
    if test.metrics.confusion is not None:
        drawn["confusion_matrix"] = figures.confusion_matrix(
            test.metrics.confusion[np.ix_(shown, shown)], names, counts, title=title
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        figures.save(figure, folder / name)
    return {name: folder / f"{name}.png" for name in drawn}
