"""The figures of a run, drawn and written together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.report import figures
from engine.report.figures.style import illegible
from engine.training.evaluation import Assessment
from engine.training.journal import Journal
from engine.training.processes import Processes
from engine.training.summary import Summary


def draw_figures(
    journal: Journal,
    test: Assessment | None,
    *,
    summary: Summary,
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, Path]:
    """Draw the figures of a run as PNG and PDF; return the PNGs by name.

    Where several processes are joined, the main one draws. Without ``track.figures``, nobody does.

    Args:
        journal: of the run; it records names with letters that no installed font has.
        test: predictions with the headline's weights; of a run that left test alone, None.
        summary: of the run.
        rows: the lines of metrics.jsonl.
    """
    if test is None or not journal.config.track.figures or not Processes.current().is_main:
        return {}
    class_counts = np.array(summary.class_counts)
    class_names = [row.name for row in summary.result.classes]
    best_epoch = summary.result.epoch if summary.headline == "val" else None
    title = f"{summary.title}, test, rule {summary.headline}"
    limits = test.metrics.limits
    shown = np.flatnonzero((class_counts > 0) | (test.metrics.per_class.support > 0))
    counts, names = class_counts[shown], [class_names[label] for label in shown.tolist()]
    if lacking := illegible([*names, summary.title]):
        journal.say(
            f"figures: no font here has {lacking[:10]}, which become boxes; install one, such as "
            "Noto Sans CJK"
        )
    drawn = {
        "recall_by_class_count": figures.recall_by_class_count(
            test.metrics.per_class.recall[shown], counts, names, title=title, limits=limits
        ),
        "reliability": figures.reliability_diagram(
            test.metrics.rows.reliability(test.predictions.targets), title=title
        ),
        "curves": figures.learning_curves(rows, best_epoch=best_epoch, title=summary.title),
    }
    if test.metrics.confusion is not None:
        drawn["confusion_matrix"] = figures.confusion_matrix(
            test.metrics.confusion[np.ix_(shown, shown)],
            names,
            counts,
            title=title,
            limits=limits,
        )
    folder = journal.folder.figures
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        figures.save(figure, folder / name)
    return {name: folder / f"{name}.png" for name in drawn}
