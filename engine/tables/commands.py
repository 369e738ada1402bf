"""The command that makes a run of a table again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from engine.config import command_line
from engine.config.components import ROOT
from engine.config.load import fingerprint, load
from engine.config.mistakes import ConfigError, nearest
from engine.config.schema import Config
from engine.tables.record import RunRecord


def command_of(record: RunRecord) -> str:
    """A line for the shell; it prints the run's numbers, and trains unless the run is there."""
    return shlex.join(["python", "train.py", *record.words])


def config_of(record: RunRecord) -> Config | None:
    """The config that a record's words give now; None where they give another run, or none."""
    try:
        given = command_line.parse(record.words)
        # Words name files of the repository, wherever the table is asked for.
        config = load([ROOT / file for file in given.files], given.overrides)
    except ConfigError:
        return None
    return config if fingerprint(config) == record.fingerprint else None


def commands(records: Sequence[RunRecord], cell: str) -> list[str]:
    """The commands behind a cell: ``ROW``, or ``ROW/SETTING``.

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
    if lost := [record for record in chosen if config_of(record) is None]:
        which = ", ".join(record.fingerprint for record in lost)
        commit = lost[0].commit or "of its time"
        raise ConfigError(
            [
                f"{cell}: files or defaults have changed, and its words no longer give "
                f"{'run' if len(lost) == 1 else 'runs'} {which}; they do at commit {commit}: "
                f"{command_of(lost[0])}"
            ]
        )
    return [command_of(record) for record in chosen]


def _one_of(known: Sequence[str] | dict[str, None]) -> str:
    return f"one of {', '.join(known)}"
