"""A table whose every cell is tuned first: the same number of trials for each, then fresh seeds.

``tune: SEARCH.yaml`` in a table file names the space. ``reproduce.py TABLE --tune`` searches it in
every row of every setting and writes what it found to ``experiments/tuned/<table>.yaml``, one entry
a cell. ``reproduce.py TABLE`` then makes the runs of the table with these words.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from engine.config import command_line
from engine.config.components import ROOT
from engine.config.load import SEEDS, fingerprint, load
from engine.config.messages import shown
from engine.config.mistakes import ConfigError
from engine.config.selection_rules import catalogue
from engine.config.strict_yaml import Dumper, parse, read_yaml
from engine.tables.cells import Cell, cells
from engine.tables.table_file import TableFile, Words
from engine.training.files import write_text, writing
from engine.tuning.search import Search
from engine.tuning.search.checks import checked
from engine.tuning.search.methods import check_epochs, existing, unfair
from engine.tuning.search.reader import read_search_file
from engine.tuning.search.schema import Pruner
from engine.tuning.search.space import constants_of

if TYPE_CHECKING:
    from engine.config.schema import Config

TUNED = ROOT / "experiments" / "tuned"
QUIET = ("track.wandb=disabled", "track.figures=false")
HEAD = "# Found by `{command}`: of {trials} trials of each cell the best."


class TunedCell(BaseModel):
    """What the search of one row in one setting found.

    Attributes:
        base: fingerprint of the config that the search was laid over, with what is searched.
        trials: that have ended.
        value: of the metric, by the best of them.
        words: what ``set`` gives every trial and its own values of the space, as ``key=value``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    trials: int
    value: float
    words: Words


Found = Mapping[tuple[str, str], TunedCell]
"""By (row, setting)."""


def tuned_file(table: TableFile) -> Path:
    """Return where the tuned words of a table are."""
    return TUNED / f"{table.name}.yaml"


def searches(table: TableFile) -> dict[tuple[str, str], Search]:
    """Return the search of each (row, setting), alike in all but the words of the cell.

    Raises:
        ConfigError: with every mistake in the search file, and in the cells.
    """
    assert table.tune is not None
    path = Path(table.tune)
    file = read_search_file(path).model_copy(update={"pruner": Pruner()})
    mistakes = list(unfair(file, path))
    if later := [row for row, method in table.methods.items() if method.after is not None]:
        mistakes.append(f"tune: {later[0]} starts from another row, and cannot be tuned by itself")
    if len(file.metrics) > 1:
        mistakes.append(f"{path}: metric={shown(list(file.metrics))}: a cell is tuned by one")
    mistakes += [
        f"{path}: set.{key}: the trials and the table have seeds of their own; leave it out"
        for key in SEEDS
        if key in file.fixed
    ]
    if mistakes:
        raise ConfigError(f"{table.name}: {mistake}" for mistake in mistakes)
    lead = Search(file=file, path=path, files=(), overrides=(), study="")
    found, studies = {}, _studies(table)
    unlike: dict[str, None] = {}
    for setting, theirs in table.settings.items():
        for row, method in table.methods.items():
            given = command_line.parse([*table.base, *theirs, *method.words])
            search = replace(
                lead,
                files=tuple(given.files),
                overrides=(*given.overrides, *_quiet(given.overrides)),
                study=studies[row, setting],
            )
            unlike |= dict.fromkeys(_unlike(search, table))
            space = existing(file.space, constants_of(search))
            queue = tuple(values for values in file.enqueue if values.keys() <= space.keys())
            own = file.model_copy(update={"space": space, "enqueue": queue})
            found[row, setting] = replace(search, file=own)
    if unlike:
        raise ConfigError(f"{table.name}: {mistake}" for mistake in unlike)
    return found


def _studies(table: TableFile) -> dict[tuple[str, str], str]:
    """Return the name of each cell's study, with a hash where cells would share one."""
    pairs = [(row, setting) for setting in table.settings for row in table.methods]
    usual = {
        (row, setting): re.sub(r"[^A-Za-z0-9._-]+", "_", f"tune-{table.name}-{setting}-{row}")
        for row, setting in pairs
    }
    count = Counter(usual.values())
    return {
        pair: f"{name}-{_hash(pair)[:6]}" if count[name] > 1 else name
        for pair, name in usual.items()
    }


def _unlike(search: Search, table: TableFile) -> Iterator[str]:
    """Yield what would tune a cell for other runs than those that the table then makes of it."""
    file, run = search.file, load(search.files, search.overrides)
    if file.budget.epochs not in (None, run.schedule.epochs):
        yield (
            f"{search.path}: budget.epochs={file.budget.epochs}: the runs of the table have "
            f"schedule.epochs={run.schedule.epochs}; leave budget.epochs out"
        )
    if catalogue()[table.rule].needs_validation and file.metrics[0] != run.evaluate.metric:
        yield (
            f"{search.path}: metric={file.metrics[0]}: the runs of the table have "
            f"evaluate.metric={run.evaluate.metric}; make them the same"
        )


def _quiet(words: Sequence[str]) -> Iterator[str]:
    said = {word.partition("=")[0] for word in words}
    return (word for word in QUIET if word.partition("=")[0] not in said)


def command_of(path: Path) -> str:
    """Return the command that tunes a table, by its path in the repository if it is in there."""
    full = path.expanduser().resolve()
    place = full.relative_to(ROOT).as_posix() if full.is_relative_to(ROOT) else full.name
    return shlex.join(["python", "reproduce.py", place, "--tune"])


def read_tuned(table: TableFile, path: Path) -> Found:
    """Return the tuned words of a table; none where it has not been tuned.

    Args:
        table: with or without ``tune``.
        path: of the table, for the command that tunes it.

    Raises:
        ConfigError: the file is damaged, was made for other words, lacks a cell, or a seed of the
            table has been tuned on.
    """
    file = tuned_file(table)
    if table.tune is None or not file.exists():
        return {}
    again = f"python reproduce.py {path} --tune makes it again"
    try:
        found = {
            (row, setting): TunedCell.model_validate(
                {**cell, "words": tuple(cell["words"])}, strict=True
            )
            for setting, rows in read_yaml(file).items()
            for row, cell in rows.items()
        }
    except (AttributeError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError([f"{file}: not tuned words of this version; {again}"]) from error
    every = searches(table)
    for pair, search in every.items():
        if pair not in found:
            raise ConfigError([f"{file}: has no {pair[0]} in {pair[1]}; {again}"])
        given = {_word(key, value) for key, value in search.file.fixed.items()}
        if found[pair].base != identity(search) or not given <= set(found[pair].words):
            raise ConfigError(
                [f"{file}: {pair[0]} in {pair[1]} was tuned with other words; {again}"]
            )
    _check_fresh_seeds(table, every)
    return found


def _check_fresh_seeds(table: TableFile, every: Mapping[Any, Search]) -> None:
    used = {seed for search in every.values() for seed in search.seeds} & set(table.seeds)
    if used:
        raise ConfigError([f"seeds: {min(used)} is that of a trial; give the table fresh seeds"])


def _tuned_subsets(table: TableFile, every: Mapping[Any, Search]) -> list[int]:
    """Return the subset seeds of the table that trials are trained on, too."""
    used = {search.base.data.imbalance.seed for search in every.values()}
    return sorted(used & set(table.subset_seeds))


def planned_runs(table: TableFile, path: Path) -> list[Cell]:
    """Return every run of a table, those of a tuned one with its tuned words.

    Args:
        table: from :func:`engine.tables.table_file.read_table_file`.
        path: of the table.

    Raises:
        ConfigError: with every mistake in any of them, or in the tuned words.
    """
    return cells(table, tuned={pair: cell.words for pair, cell in read_tuned(table, path).items()})


def identity(search: Search) -> str:
    """Return what a cell was tuned over, in one word: its base config and its space."""
    return f"{fingerprint(search.base)}-{_hash(search.identity())[:8]}"


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def require_tuned(table: TableFile, path: Path) -> None:
    """Refuse to make the runs of a table that is to be tuned first.

    Raises:
        ConfigError: it has not been.
    """
    if table.tune is not None and not tuned_file(table).exists():
        raise ConfigError([f"{path}: is not tuned yet: python reproduce.py {path} --tune"])


def tune(
    table: TableFile, path: Path, *, command: Sequence[str], say: Callable[[str], None]
) -> Path:
    """Search every cell, write what was found, and return the file.

    Run by several processes at once they share the work; one that was stopped goes on from there.

    Args:
        table: with ``tune``.
        path: of the table, for the head of the file.
        command: recorded in each run's environment.json.
        say: told where the tuning is.

    Raises:
        ConfigError: the table has nothing to tune or a seed of a trial, a mistake in the space, no
            trial of a cell has ended with a finite value, or a cell has had fewer trials.
        WriteError: the file cannot be written.
    """
    if table.tune is None:
        raise ConfigError([f"{path}: has no tune: SEARCH.yaml, which says what to tune"])
    every = searches(table)
    _check_fresh_seeds(table, every)
    configs = {pair: checked(search) for pair, search in every.items()}
    check_epochs(
        list(every.values()),
        list(configs.values()),
        who=f"{path}: the cells",
        advice="give all of them the same schedule.epochs",
    )
    if subsets := _tuned_subsets(table, every):
        say(
            f"subset_seeds: {', '.join(map(str, subsets))} is tuned on, and is one of the table's; "
            "where a subset seed draws images, give the table others"
        )
    found: dict[str, dict[str, Any]] = {}
    for number, (pair, search) in enumerate(every.items(), start=1):
        row, setting = pair
        say(f"[{number}/{len(every)}] {row} in {setting}")
        cell = _searched(search, configs[pair], command=command)
        say(f"[{number}/{len(every)}] {row} in {setting}: {cell.value:.4f}, {' '.join(cell.words)}")
        found.setdefault(setting, {})[row] = cell.model_dump(mode="json")
    budget = next(iter(every.values())).file.budget.trials
    text = yaml.dump(found, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    head = HEAD.format(command=command_of(path), trials=budget)
    with writing(tuned_file(table)):
        write_text(tuned_file(table), f"{head}\n{text}")
    return tuned_file(table)


def _searched(search: Search, configs: Sequence[Config], *, command: Sequence[str]) -> TunedCell:
    """Make the study of one cell, or finish it, and return the best of it."""
    from engine.tuning.confirm.shortfalls import shortfall
    from engine.tuning.study.session import open_session, work_on
    from engine.tuning.study.trials import ended_trials, objectives, ranked

    session = open_session(search, configs)
    try:
        session.display.begin(session.study)
        with session.display.live():
            work_on(session, command=command)
        goals = objectives(session.study, search.file.metrics)
        best = ranked(session.study.get_trials(deepcopy=False), goals)
        if not best:
            raise ConfigError([f"{search.study}: no trial has ended with a finite value"])
        if short := shortfall(search, session.study):
            raise ConfigError(
                [
                    f"{search.study}: {short}; every cell gets as many: narrow the space of "
                    f"{search.path}, or run the same command again if the search was stopped"
                ]
            )
        return TunedCell(
            base=identity(search),
            trials=len(ended_trials(session.study)),
            value=best[0].values[0],
            words=tuple(_word(*pair) for pair in search.values(best[0].params).items()),
        )
    finally:
        session.close()


def _word(key: str, value: Any) -> str:
    """Return ``key=value`` as ``train.py`` reads it back.

    >>> _word("data.augment.crop", None), _word("loss.name", "ldam"), _word("data.title", "12")
    ('data.augment.crop=null', 'loss.name=ldam', 'data.title="12"')
    """
    return f"{key}={value if _is_plain(value) else json.dumps(value)}"


def _is_plain(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(parse(value) == value)
    except yaml.YAMLError:
        return False
