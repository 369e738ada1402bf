"""Runs of a table that are trained alike, and differ in how they predict alone.

Post-hoc logit adjustment is such a row beside cross-entropy: the weights are the same to the last
bit, and training them twice would only cost twice. The second run begins where the first has ended,
and predicts test by itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from engine.config.load import fingerprint
from engine.config.rules import has_validation
from engine.config.schema import Config
from engine.tables.cells import Cell
from engine.tables.record import locked
from engine.training.files import read_json, write_json
from engine.training.provenance import new_run_id
from engine.training.run_folder import RunFolder


def source_of(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """Return the first of the runs that trains the weights of this one; None if it is this one.

    Runs with validation have none, since what they log and choose by it hangs on how they predict.

    Args:
        cell: the run.
        cells: all runs, in the order in which they are made.
    """
    training = _training(cell.config)
    if training is None:
        return None
    first = next(other for other in cells if _training(other.config) == training)
    return None if first.fingerprint == cell.fingerprint else first


def trained_apart(cells: Sequence[Cell], *, left: Sequence[Cell]) -> list[Cell]:
    """Return the runs that are left without those that will have the weights of another.

    Args:
        cells: all runs, in the order in which they are made.
        left: those of them that are still to be made.
    """
    waiting, sources = {cell.fingerprint for cell in left}, list[tuple[Config, Cell]]()
    apart = []
    for cell in cells:
        training = _training(cell.config)
        source = next((first for known, first in sources if known == training), None)
        if training is not None and source is None:
            sources.append((training, cell))
        is_shared = source is not None and (
            source.fingerprint in waiting or RunFolder(source.folder).summary.exists()
        )
        if cell.fingerprint in waiting and not is_shared:
            apart.append(cell)
    return apart


def begin_where_it_ended(cell: Cell, source: Cell) -> None:
    """Give a run that has not begun the weights and epochs of one that has finished.

    Its environment.json then names that run as ``trained_as``. Where the copy cannot be written,
    there is none, and the run trains as any other does. Processes that copy into one folder wait
    for each other.

    Args:
        cell: the run; where its folder exists, nothing is done.
        source: from :func:`source_of`.
    """
    ours, theirs = RunFolder(cell.folder), RunFolder(source.folder)
    environment = read_json(theirs.environment)
    if ours.path.exists() or environment is None or not any(theirs.checkpoints.glob("*.pt")):
        return
    partial = RunFolder(ours.path.with_name(f".{ours.path.name}.tmp"))
    partial.path.parent.mkdir(parents=True, exist_ok=True)
    with locked(partial.path.parent):  # the lock of a killed process has fallen with it
        if ours.path.exists():
            return
        try:
            _copy(partial, cell=cell, source=source, environment=environment)
            partial.path.rename(ours.path)
        except OSError:  # a full disk, say, or a process that has begun the run meanwhile
            shutil.rmtree(partial.path, ignore_errors=True)


def _copy(partial: RunFolder, *, cell: Cell, source: Cell, environment: Mapping[str, Any]) -> None:
    """Write what the run takes over, in the place of what a killed process has left there."""
    theirs = RunFolder(source.folder)
    shutil.rmtree(partial.path, ignore_errors=True)
    shutil.copytree(theirs.checkpoints, partial.checkpoints)
    shutil.copy2(theirs.metrics, partial.metrics)
    own = {"fingerprint": cell.fingerprint, "wandb_id": new_run_id(cell.fingerprint)}
    own |= {"group": fingerprint(cell.config, without_seeds=True)}
    own |= {"trained_as": source.fingerprint}
    write_json(partial.environment, {**environment, **own})


def _training(config: Config) -> Config | None:
    """Return a config without what predicts only; None where that would change what is logged."""
    if has_validation(config) or config.evaluate.test_every_epoch or config.track.is_tracked:
        return None
    plain = config.evaluate.model_copy(update={"logit_adjustment": 0.0})
    return config.model_copy(update={"evaluate": plain})
