"""The command that makes a run of a table again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from engine.config import command_line
from engine.config.components import ROOT
from engine.config.load import RUNS, fingerprint, load
from engine.config.mistakes import ConfigError, nearest
from engine.config.schema import Config
from engine.config.strict_yaml import parse
from engine.tables.cells import INIT_FROM
from engine.tables.record import RunRecord
from engine.training.named_precision import settled

FINGERPRINT = re.compile(r"[0-9a-f]{12}")


def command_of(record: RunRecord) -> str:
    """Return a line for the shell: it makes the run, or prints its numbers if it is there."""
    return shlex.join(["python", "train.py", *record.words])


def config_of(record: RunRecord) -> Config | None:
    """Return the config that a record's words give now; None where they give another run, or none.

    The run that a second stage starts from need not exist: its folder's name is its fingerprint.
    """
    named = {folder: Path(folder).name for folder in _named_runs(record)}
    planned = {folder: name for folder, name in named.items() if FINGERPRINT.fullmatch(name)}
    try:
        given = command_line.parse(record.words)
        # Words name files of the repository, wherever the table is asked for.
        files = [ROOT / file for file in given.files]
        config = settled(load(files, given.overrides, planned=planned))
        return config if fingerprint(config, planned=planned) == record.fingerprint else None
    except ConfigError:
        return None


def stages_of(record: RunRecord, records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs that a run needs, each after those that it needs itself, which is the last.

    A run needs those that it starts from, one or several whose weights are averaged, and its
    teacher.

    Raises:
        ConfigError: one of them has no line, or the lines lead back to where they began.
    """
    if not _named_runs(record):
        return [record]
    made = {known.fingerprint: known for known in records}
    found: dict[str, RunRecord] = {}

    def add(run: RunRecord, *, above: tuple[str, ...]) -> None:
        for folder in _named_runs(run):
            name = Path(folder).name
            if name in above:
                raise ConfigError(
                    [
                        f"{run.method}: run {name} starts from itself by the lines of the table; "
                        "its file has been changed"
                    ]
                )
            if name not in made:
                raise ConfigError(
                    [
                        f"{run.method}: run {name}, which it needs, has no line in the table; "
                        f"this run alone: {command_of(run)}"
                    ]
                )
            if name not in found:
                add(made[name], above=(*above, name))
        found[run.fingerprint] = run

    add(record, above=(record.fingerprint,))
    return list(found.values())


def first_stage_of(record: RunRecord, records: Sequence[RunRecord]) -> Config | None:
    """Return the config of the run that a later stage began with.

    None for a run of one stage, for the mean of several runs, and where the first has no line or
    its words no longer give it.
    """
    if not _named_runs(record, keys=(INIT_FROM,)):
        return None
    made = {known.fingerprint: known for known in records}
    first, seen = record, {record.fingerprint}
    while starts := _named_runs(first, keys=(INIT_FROM,)):
        name = Path(starts[0]).name
        if len(starts) > 1 or name not in made or name in seen:
            return None
        seen.add(name)
        first = made[name]
    return None if first is record else config_of(first)


def _named_runs(record: RunRecord, *, keys: Sequence[str] = RUNS) -> list[str]:
    """Return the run folders that a record's words name, in the order of the words.

    Those that a YAML file among the words names are not looked for.
    """
    found: list[str] = []
    for key, _, text in (word.partition("=") for word in record.words):
        if key in keys:
            value = parse(text)
            if isinstance(value, list):
                found += map(str, value)
            elif value is not None:
                found.append(value if isinstance(value, str) else text)
    return found


def commands(records: Sequence[RunRecord], cell: str) -> list[str]:
    """Return the commands behind a cell, ``ROW`` or ``ROW/SETTING``, earlier stages first.

    Raises:
        ConfigError: there is no such row or setting, or a run that no command makes any more.
    """
    row, slash, setting = (part.strip() for part in cell.partition("/"))
    rows = dict.fromkeys(record.method for record in records)
    if row not in rows:
        raise ConfigError([f"--command: no row {row!r}{nearest(row, rows)}; {_one_of(rows)}"])
    settings = dict.fromkeys(record.setting for record in records if record.method == row)
    if slash and setting not in settings:
        hint = nearest(setting, settings)
        raise ConfigError([f"--command: row {row} has no {setting!r}{hint}; {_one_of(settings)}"])
    chosen = [r for r in records if r.method == row and (not slash or r.setting == setting)]
    every = [stage for record in chosen for stage in stages_of(record, records)]
    if lost := [record for record in every if config_of(record) is None]:
        which = ", ".join(record.fingerprint for record in lost)
        commit = lost[0].commit or "of its time"
        raise ConfigError(
            [
                f"{cell}: files or defaults have changed, and its words no longer give "
                f"{'run' if len(lost) == 1 else 'runs'} {which}; they do at commit {commit}: "
                f"{command_of(lost[0])}"
            ]
        )
    return list(dict.fromkeys(command_of(record) for record in every))


def _one_of(known: Sequence[str] | dict[str, None]) -> str:
    return f"one of {', '.join(known)}"
