"""The end of a comparison: best-of-n curves, the best of each method again on fresh seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from engine.config.messages import one_line
from engine.report.figures import save
from engine.training.files import write_text
from engine.tuning.confirm import closing_table, confirm, confirmed_rows, finish
from engine.tuning.confirm.confirm import Candidate, Job
from engine.tuning.figures import best_of_n_figures
from engine.tuning.figures.best_of_n import best_of_n
from engine.tuning.study.trials import Objective, complete, objectives

if TYPE_CHECKING:
    from rich.console import RenderableType

    from engine.tuning.study.session import Sitting
    from engine.tuning.study.study import StudyFolder


class Comparison(NamedTuple):
    """Ended searches of several methods, and what is trained again.

    Attributes:
        methods: name to sitting; the first is what the others are compared with.
        failed: methods none of whose trials has a finite value.
        candidates: the best setting of each method.
        seeds: fresh ones.
        jobs: runs of the confirm stage.
        folder: of the comparison.
    """

    methods: dict[str, Sitting]
    failed: list[str]
    candidates: list[Candidate]
    seeds: tuple[int, ...]
    jobs: list[Job]
    folder: StudyFolder

    @property
    def objective(self) -> Objective:
        """The first metric; it ranks."""
        first = next(iter(self.methods.values()))
        return objectives(first.study, first.search.file.metrics)[0]


def comparison_of(sittings: Mapping[str, Sitting], folder: StudyFolder) -> Comparison:
    """What there is to compare once every search has ended; the same in every process.

    Args:
        sittings: by the name of the method, in the order of the command line.
        folder: of the comparison; the run folders go to ``confirm/`` inside.
    """
    candidates, failed, searched = [], [], set[int]()
    for name, sitting in sittings.items():
        search = sitting.search
        trials = complete(sitting.study.get_trials(deepcopy=False))
        ranked = confirm.ranked(trials, objectives(sitting.study, search.file.metrics))
        searched |= set(search.search_seeds(search.base()))
        if not ranked:
            failed.append(name)
            continue
        best = confirm.of_trial(ranked[0], search)
        candidates.append(Candidate(name, best.config, best.params, best.trial, best.searched))
    stage = next(iter(sittings.values())).search.file.confirm
    seeds = confirm.fresh_seeds(sorted(searched), number=stage.seeds)
    jobs = confirm.jobs(candidates, seeds=seeds, root=folder.path, group=folder.path.name)
    methods = {name: sittings[name] for name in sittings if name not in failed}
    return Comparison(methods, failed, candidates, seeds, jobs if stage.top else [], folder)


class Closed(NamedTuple):
    """What a comparison says at its end, and the ending of each method's own search."""

    shown: list[RenderableType]
    endings: dict[str, finish.Ending]


def close(found: Comparison) -> Closed:
    """Write best_of_n.csv, confirm.csv, confirm.md and the figure.

    Each method's own study folder gets its figures and best.yaml, as after a search alone.
    """
    shown: list[RenderableType] = [
        f"{name}: left out, no trial has ended with a finite value" for name in found.failed
    ]
    if not found.methods:
        return Closed(shown, {})
    goal, folder = found.objective, found.folder
    values = {
        name: best_of_n_figures.values_of(sitting.study.get_trials(deepcopy=False), goal)
        for name, sitting in found.methods.items()
    }
    title = f"{folder.path.name}: expected best {goal.metric} of n trials"
    write_text(folder.path / "best_of_n.csv", _curves_csv(values, goal))
    save(best_of_n_figures.comparison(values, goal, title=title), folder.figures / "best_of_n")
    shown += ["", _curves_table(values, goal, title=title)]
    if found.jobs:
        results = confirm.summaries(found.jobs)
        table = confirmed_rows.rows(
            found.candidates,
            results,
            goal,
            seeds=found.seeds,
            diverged=confirm.diverged(found.jobs),
        )
        title = f"{folder.path.name}: the best setting of each method, trained again"
        shown += ["", closing_table.screen_table(table, title=f"{title}; {goal.metric}")]
        shown += [*closing_table.verdicts(table), ""]
        shown += closing_table.explanation(table, seeds=found.seeds)
        text = closing_table.markdown([table], title=title, seeds=found.seeds)
        write_text(folder.path / "confirm.md", text)
        write_text(folder.path / "confirm.csv", closing_table.csv_text([table]))
    shown.append(f"figure: {folder.figures / 'best_of_n.png'}")
    endings = {
        name: finish.close(sitting.search, sitting.study, sitting.folder)
        for name, sitting in found.methods.items()
    }
    shown += [f"{name}: {end.shown[-1]}" for name, end in endings.items()]
    return Closed(shown, endings)


def _numbers(most: int) -> list[int]:
    """n of the table: 1, 2, 5, 10 ... and the last that all methods have."""
    steps = [m * 10**e for e in range(6) for m in (1, 2, 5)]
    return [n for n in steps if n < most] + [most]


def _curves_table(values: Mapping[str, Sequence[float]], goal: Objective, *, title: str) -> Table:
    numbers = _numbers(min(len(found) for found in values.values()))
    table = Table(box=SIMPLE_HEAD, title_justify="left", title=Text(one_line(title)))
    table.add_column("method")
    for n in numbers:
        table.add_column(f"n = {n}", justify="right")
    for name, found in values.items():
        mean = best_of_n(found, direction=goal.direction).mean
        table.add_row(Text(one_line(name)), *(f"{mean[n - 1]:.3f}" for n in numbers))
    return table


def _curves_csv(values: Mapping[str, Sequence[float]], goal: Objective) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["method", "n", "expected_best", "low", "high"])
    for name, found in values.items():
        columns = best_of_n(found, direction=goal.direction)
        rows.writerows([name, *row] for row in zip(*(c.tolist() for c in columns), strict=True))
    return text.getvalue()
