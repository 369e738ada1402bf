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
from engine.tuning.confirm import closing_table, confirmed_rows, jobs, study_report
from engine.tuning.confirm.candidates import Candidate, of_trial
from engine.tuning.confirm.shortfalls import shortfall
from engine.tuning.figures import best_of_n_figures
from engine.tuning.figures.best_of_n import best_of_n
from engine.tuning.study.trials import Objective, objectives, ranked

if TYPE_CHECKING:
    from rich.console import RenderableType

    from engine.tuning.study.folder import StudyFolder
    from engine.tuning.study.session import Session


class ConfirmedMethods(NamedTuple):
    """Ended searches of several methods, and what is trained again.

    Attributes:
        methods: name to session; the first is what the others are compared with.
        failed: methods none of whose trials has a finite value.
        candidates: the best setting of each method.
        seeds: fresh ones.
        jobs: runs of the confirm stage.
    """

    methods: dict[str, Session]
    failed: list[str]
    candidates: list[Candidate]
    seeds: tuple[int, ...]
    jobs: list[jobs.Job]

    @property
    def objective(self) -> Objective:
        """The first metric; it ranks."""
        first = next(iter(self.methods.values()))
        return objectives(first.study, first.search.file.metrics)[0]


def confirmed_methods(sessions: Mapping[str, Session], folder: StudyFolder) -> ConfirmedMethods:
    """Return what there is to compare once every search has ended; the same in every process.

    Args:
        sessions: by the name of the method, in the order of the command line.
        folder: of the comparison; the run folders go to ``confirm/`` inside.
    """
    found, failed, searched = list[Candidate](), list[str](), set[int]()
    for name, session in sessions.items():
        search = session.search
        searched |= set(search.seeds)
        goals = objectives(session.study, search.file.metrics)
        best_first = ranked(session.study.get_trials(deepcopy=False), goals)
        if not best_first:
            failed.append(name)
            continue
        best = of_trial(best_first[0], search)
        found.append(Candidate(name, best.config, best.params, best.trial, best.searched))
    stage = next(iter(sessions.values())).search.file.confirm
    seeds = jobs.fresh_seeds(sorted(searched), number=stage.seeds)
    todo = jobs.jobs_of(found, seeds=seeds, root=folder.path, group=folder.path.name)
    methods = {name: session for name, session in sessions.items() if name not in failed}
    return ConfirmedMethods(methods, failed, found, seeds, todo if stage.top else [])


class ComparisonReport(NamedTuple):
    """What a comparison says at its end, and the report of each method's own search."""

    shown: list[RenderableType]
    studies: dict[str, study_report.StudyReport]


def report(found: ConfirmedMethods, folder: StudyFolder) -> ComparisonReport:
    """Write best_of_n.csv, confirm.csv, confirm.md and the figure, and return what is to be shown.

    Each method's own study folder gets its figures and best.yaml, as after a search alone.
    """
    shown: list[RenderableType] = [
        f"{name}: left out, no trial has ended with a finite value" for name in found.failed
    ]
    short = [
        f"{name}: {text}: its best is the best of fewer than its budget"
        for name, session in found.methods.items()
        if (text := shortfall(session.search, session.study))
    ]
    shown += short
    if not found.methods:
        return ComparisonReport(shown, {})
    goal = found.objective
    values = {
        name: best_of_n_figures.values_of(session.study.get_trials(deepcopy=False), goal)
        for name, session in found.methods.items()
    }
    title = f"{folder.path.name}: expected best {goal.metric} of n trials"
    write_text(folder.path / "best_of_n.csv", _curves_csv(values, goal))
    save(best_of_n_figures.comparison(values, goal, title=title), folder.figures / "best_of_n")
    shown += ["", _curves_table(values, goal, title=title)]
    if found.jobs:
        results = jobs.summaries(found.jobs)
        table = confirmed_rows.rows(
            found.candidates,
            results,
            goal,
            seeds=found.seeds,
            diverged=jobs.diverged(found.jobs),
        )
        title = f"{folder.path.name}: the best setting of each method, trained again"
        shown += ["", closing_table.screen_table(table, title=f"{title}; {goal.metric}")]
        shown += [*closing_table.verdicts(table), ""]
        shown += closing_table.explanation(table, seeds=found.seeds)
        text = closing_table.markdown([table], title=title, seeds=found.seeds)
        text += "".join(f"{line}.\n" for line in short)
        write_text(folder.path / "confirm.md", text)
        write_text(folder.path / "confirm.csv", closing_table.csv_text([table]))
    shown.append(f"figure: {folder.figures / 'best_of_n.png'}")
    studies = {
        name: study_report.report(session.search, session.study, session.folder)
        for name, session in found.methods.items()
    }
    shown += [f"{name}: {study.shown[-1]}" for name, study in studies.items()]
    return ComparisonReport(shown, studies)


def _numbers(most: int) -> list[int]:
    """Return n of the table: 1, 2, 5, 10 ... and the last that all methods have."""
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
