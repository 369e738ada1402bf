"""Runs of a table that are trained alike, and differ in how they predict alone.

Post-hoc logit adjustment is such a row beside cross-entropy: the weights are the same to the last
bit, and training them twice would only cost twice. The second run begins where the first has ended,
and predicts test by itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence

from engine.config.load import fingerprint
from engine.config.rules import has_validation
from engine.config.schema import Config
from engine.tables.cells import Cell
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


def begin_where_it_ended(cell: Cell, source: Cell) -> None:
    """Give a run that has not begun the weights and epochs of one that has finished.

    Its environment.json then names that run as ``trained_as``.

    Args:
        cell: the run; where its folder exists, nothing is done.
        source: from :func:`source_of`.
    """
    ours, theirs = RunFolder(cell.folder), RunFolder(source.folder)
    environment = read_json(theirs.environment)
    if ours.path.exists() or environment is None or not any(theirs.checkpoints.glob("*.pt")):
        return
    partial = RunFolder(ours.path.with_name(f".{ours.path.name}.{os.getpid()}.tmp"))
    partial.path.mkdir(parents=True)
    try:
        shutil.copytree(theirs.checkpoints, partial.checkpoints)
        for file in (theirs.metrics, theirs.parameters):
            shutil.copy2(file, partial.path)
        own = {"fingerprint": cell.fingerprint, "wandb_id": new_run_id(cell.fingerprint)}
        own |= {"group": fingerprint(cell.config, without_seeds=True)}
        own |= {"trained_as": source.fingerprint}
        write_json(partial.environment, {**environment, **own})
        with contextlib.suppress(OSError):  # another process was faster, and has the run now
            partial.path.rename(ours.path)
    finally:
        shutil.rmtree(partial.path, ignore_errors=True)


def _training(config: Config) -> Config | None:
    """Return a config without what predicts only; None where that would change what is logged."""
    if has_validation(config) or config.evaluate.test_every_epoch or config.track.is_tracked:
        return None
    plain = config.evaluate.model_copy(update={"logit_adjustment": 0.0})
    return config.model_copy(update={"evaluate": plain})
