"""All figures of a search, and a sentence for each one that cannot be drawn."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.report.figures import save
from engine.tuning.figures import best_of_n_figures, search_figures
from engine.tuning.figures.importance import FEWEST_TRIALS, importances
from engine.tuning.figures.map_figure import parameter_map
from engine.tuning.study.trials import Objective, complete, front, keys_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

MOST_MAPS = 6
FIRST = ("alpha", "gamma")  # keys that lead, on the first map


class Drawn(NamedTuple):
    """Figures by name, and what could not be drawn."""

    figures: dict[str, Figure]
    notes: list[str]


class Known(NamedTuple):
    """What the confirm stage adds to the figures of a search.

    Attributes:
        seed_std: of each objective over seeds, on validation; None where unknown.
        default: validation mean of the default for each objective; None where unknown.
        marks: settings to be marked on the maps, as dotted keys to values, by legend entry.
    """

    seed_std: Sequence[float | None]
    default: Sequence[float | None]
    marks: Mapping[str, Mapping[str, Any]]


def draw(
    trials: Sequence[FrozenTrial],
    objectives: Sequence[Objective],
    *,
    title: str,
    known: Known | None = None,
) -> Drawn:
    """Draw what the trials allow.

    Args:
        trials: of a study.
        objectives: of the study.
        title: first words of every figure: the study and its data.
        known: from the confirm stage, once it is done.
    """
    done, drawn = complete(trials), Drawn({}, [])
    if not done:
        drawn.notes.append("no figure: no trial has ended with a finite value")
        return drawn
    nothing: list[float | None] = [None] * len(objectives)
    known = known or Known(nothing, nothing, {})
    for index, objective in enumerate(objectives):
        end = "" if len(objectives) == 1 else f"_{objective.metric.removeprefix('val/')}"
        facts: dict[str, Any] = {"index": index, "title": f"{title} · {objective.metric}"}
        drawn.figures[f"history{end}"] = search_figures.history(
            trials, objective, seed_std=known.seed_std[index], default=known.default[index], **facts
        )
        drawn.figures[f"best_of_n{end}"] = best_of_n_figures.best_of_n_curve(
            trials, objective, **facts
        )
        _draw_importance(drawn, done, objective, end=end, **facts)
        for x, y in _pairs(done, drawn, objective):
            drawn.figures[f"map_{x}_{y}{end}"] = parameter_map(
                trials, objective, x=x, y=y, seed_std=known.seed_std[index], marks=known.marks,
                **facts,
            )  # fmt: skip
    if len(objectives) == 2:
        first, second = known.default
        default = None if first is None or second is None else (first, second)
        drawn.figures["pareto"] = search_figures.pareto_front(
            trials, (objectives[0], objectives[1]), front=front(done, objectives), title=title,
            default=default,
        )  # fmt: skip
    elif len(objectives) > 2:
        drawn.notes.append(f"no Pareto figure: it takes two metrics, not {len(objectives)}")
    return drawn


def save_all(drawn: Drawn, folder: Path) -> None:
    """Write every figure as PNG and PDF."""
    for name, figure in drawn.figures.items():
        save(figure, folder / name)


def _draw_importance(
    drawn: Drawn,
    done: Sequence[FrozenTrial],
    objective: Objective,
    *,
    end: str,
    index: int,
    title: str,
) -> None:
    found = importances(done, objective, index=index)
    if found is None:
        few = len(done) < FEWEST_TRIALS
        why = f"{len(done)} of {FEWEST_TRIALS} trials" if few else "no key tells good from bad"
        drawn.notes.append(f"no importance of keys for {objective.metric}: {why}")
        return
    note = f"share in reaching the best trials; lines: 8 of 10 resamples of the {len(done)} trials"
    drawn.figures[f"importance{end}"] = search_figures.importance_bars(
        found, title=title, note=note
    )


def _pairs(
    done: Sequence[FrozenTrial], drawn: Drawn, objective: Objective
) -> list[tuple[str, str]]:
    """Return the pairs of keys that one trial at least sets together, alpha and gamma first."""
    keys = sorted(keys_of(done), key=_rank)
    together = [
        (x, y)
        for x, y in itertools.combinations(keys, 2)
        if any(x in trial.params and y in trial.params for trial in done)
    ]
    if not together:
        drawn.notes.append(f"no map for {objective.metric}: no two keys were searched together")
    if len(together) > MOST_MAPS:
        drawn.notes.append(
            f"{MOST_MAPS} maps of {len(together)} pairs of keys are drawn for {objective.metric}"
        )
    return together[:MOST_MAPS]


def _rank(key: str) -> int:
    leaf = key.rpartition(".")[2]
    return FIRST.index(leaf) if leaf in FIRST else len(FIRST)
