"""The end of a search: confirm, then closing table, best.yaml, figures and the last command."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.config.layers import full_key
from engine.config.load import dump, fingerprint, flatten
from engine.config.messages import one_line
from engine.config.mistakes import ConfigError
from engine.training.files import write_text
from engine.tuning.confirm import closing_table, confirmed_rows, jobs
from engine.tuning.confirm.candidates import Candidate, candidates, of_trial
from engine.tuning.confirm.confirmed_rows import Row
from engine.tuning.confirm.jobs import Job
from engine.tuning.figures import drawing
from engine.tuning.search.schema import spelled
from engine.tuning.study.trials import Objective, ended_trials, objectives, ranked

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial
    from rich.console import RenderableType

    from engine.config.schema import Config
    from engine.tuning.search import Search
    from engine.tuning.study.folder import StudyFolder


class Stage(NamedTuple):
    """The confirm stage of one study: a function of its trials, so every worker makes the same."""

    candidates: tuple[Candidate, ...]
    seeds: tuple[int, ...]
    jobs: list[Job]


class StudyReport(NamedTuple):
    """What a search says at its end.

    Attributes:
        shown: tables and lines for the terminal, in order; the last line is the command that
            trains the chosen setting, where one is chosen.
        drawn: the figures, which are in the study folder too.
        tables: rows of the closing table, one table a metric.
        chosen: the setting of best.yaml.
    """

    shown: list[RenderableType]
    drawn: drawing.Drawn
    tables: list[list[Row]]
    chosen: Candidate | None


def stage(search: Search, study: Study, folder: StudyFolder) -> Stage:
    """Return what the confirm stage of an ended search trains.

    Args:
        search: of the study.
        study: none of its trials is running any more.
        folder: of the study; the run folders go to ``confirm/`` inside.
    """
    found = candidates(
        search,
        study.get_trials(deepcopy=False),
        objectives(study, search.file.metrics),
        top=search.file.confirm.top,
    )
    seeds = jobs.fresh_seeds(search.seeds, number=search.file.confirm.seeds)
    todo = jobs.jobs_of(found, seeds=seeds, root=folder.path, group=search.study)
    return Stage(found, seeds, todo if search.file.confirm.top else [])


def confirm_study(
    search: Search,
    study: Study,
    folder: StudyFolder,
    *,
    run: Callable[[Config], object],
    begins: Callable[[str, int, int], None] | None = None,
) -> None:
    """Train what the confirm stage lacks; any number of workers may do so at once.

    Args:
        search: of the study.
        study: an ended search.
        folder: of the study.
        run: trains a config and predicts test, as ``train.run`` does.
        begins: told the setting and the seed of each run that this worker takes up, and how many
            were left then.
    """
    jobs.train_all(stage(search, study, folder).jobs, run=run, begins=begins)


def report(search: Search, study: Study, folder: StudyFolder) -> StudyReport:
    """Write the tables, best.yaml and the figures, and return what is to be shown.

    confirm.csv and confirm.md hold the closing table; pareto.csv, with several metrics, the front.

    To be called by one process, after :func:`confirm_study` has returned in all. It may be called
    again, and before: then it tells what there is.

    Args:
        search: of the study.
        study: the search.
        folder: of the study.
    """
    goals = objectives(study, search.file.metrics)
    trials = study.get_trials(deepcopy=False)
    todo = stage(search, study, folder)
    results = jobs.summaries(todo.jobs) if todo.jobs else {}
    failed = jobs.diverged(todo.jobs)
    tables = [
        confirmed_rows.rows(
            todo.candidates, results, goal, seeds=todo.seeds, diverged=failed, index=index
        )
        for index, goal in enumerate(goals)
        if results
    ]
    number = len(ended_trials(study))
    title = f"{search.study}: the best settings of {number} trials, trained again"
    shown: list[RenderableType] = []
    if len(goals) > 1 and (found := closing_table.on_front(trials, goals)):
        name = (
            f"{search.study}: {len(found)} of {number} trials are beaten by no other in all metrics"
        )
        shown += ["", closing_table.front_table(found, goals, title=name)]
        write_text(folder.path / "pareto.csv", closing_table.front_csv(found, goals))
    for table in tables:
        name = f"{title}; {table[0].objective.metric}"
        shown += ["", closing_table.screen_table(table, title=one_line(name))]
        shown += [*closing_table.verdicts(table), ""]
        shown += closing_table.explanation(table, seeds=todo.seeds)
    if tables:
        text = closing_table.markdown(tables, title=title, seeds=todo.seeds)
        write_text(folder.path / "confirm.md", text)
        write_text(folder.path / "confirm.csv", closing_table.csv_text(tables))
    best = _chosen(tables, best_first=ranked(trials, goals), search=search)
    drawn = drawing.draw(
        trials, goals, title=search.study, known=_known(search, goals, tables=tables, best=best)
    )
    drawing.save_all(drawn, folder.figures)
    shown += [*drawn.notes, f"figures: {folder.figures}"] if drawn.figures else drawn.notes
    if best is not None:
        write_text(folder.best, best_yaml(best, tables, study=search.study, metric=goals[0].metric))
        shown.append(f"python train.py {shlex.quote(str(folder.best))}")
    return StudyReport(shown, drawn, tables, best)


def _chosen(
    tables: Sequence[Sequence[Row]], *, best_first: Sequence[FrozenTrial], search: Search
) -> Candidate | None:
    """Return the first metric's choice; without a confirm stage the best of the search, if any."""
    if tables:
        row = confirmed_rows.chosen(tables[0])
        return None if row is None else row.candidate
    return of_trial(best_first[0], search) if best_first else None


def best_yaml(best: Candidate, tables: Sequence[Sequence[Row]], *, study: str, metric: str) -> str:
    """Return the chosen setting as a config file.

    Its comments say how it was chosen and what it is worth.

    Args:
        best: the setting.
        tables: the closing tables, empty without a confirm stage.
        study: its name.
        metric: the first of the search's.
    """
    lines = [f"{study}: {closing_table.described(best)}"]
    row = confirmed_rows.chosen(tables[0]) if tables else None
    if row is None:
        lines.append(f"Chosen: the best {metric} of the search, of one seed or few; not confirmed.")
    else:
        lines.append(f"Chosen: the best confirmed mean of {metric} on validation, never by test.")
        _, _, val, test, number, difference, verdict = closing_table.cells(row)
        lines.append(f"Over fresh seeds: validation {val}, test {test}, n = {number}.")
        if row.difference is not None:
            lines.append(f"On test, minus the default: {difference}: {verdict}.")
    return "".join(f"# {one_line(line)}\n" for line in lines) + dump(best.config)


def _known(
    search: Search,
    goals: Sequence[Objective],
    *,
    tables: Sequence[Sequence[Row]],
    best: Candidate | None,
) -> drawing.Known:
    marks = {}
    if best is not None and best.trial is not None:
        marks[f"chosen: {best.name}"] = best.params
    if (default := _default_in_space(search)) is not None:
        marks["default"] = default
    if not tables:
        nothing = [None] * len(goals)
        return drawing.Known(nothing, nothing, marks)
    defaults = [table[0].val for table in tables]
    return drawing.Known(
        [confirmed_rows.seed_std(table) for table in tables],
        [None if val is None else val.mean for val in defaults],
        marks,
    )


def _default_in_space(search: Search) -> dict[str, Any] | None:
    """Return the default's values of the searched keys; None where it is no point of the space.

    It is none when the file sets another loss, say: a key without effect has a default too.
    """
    base = search.base
    flat = flatten(base)
    params = {
        key: spelled(flat[full_key(key)]) for key in search.file.space if full_key(key) in flat
    }
    try:
        is_same = fingerprint(search.config(params)) == fingerprint(base)
    except ConfigError:
        return None
    return params if is_same else None
