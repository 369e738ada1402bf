"""Runs of a table that are trained alike, wholly or for some epochs: those are trained once.

Post-hoc logit adjustment is a row beside cross-entropy with the same weights to the last bit, and
deferred reweighting is cross-entropy for four fifths of training. Such a run begins where the other
one has ended, or was after the last epoch that both have: with its weights and optimizer state, and
the lines of its epochs. Which runs these are is said in :mod:`engine.tables.trained_alike`.

A run leaves a checkpoint after each epoch in which others begin. Where that is not there, since
the run was made elsewhere, or before, a run trains as any other does.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.config.load import fingerprint
from engine.tables.cells import Cell
from engine.tables.record import locked
from engine.tables.task import code_now, is_outdated
from engine.tables.trained_alike import Source
from engine.training.files import read_json, write_json, write_text
from engine.training.provenance import new_run_id
from engine.training.run_folder import LEFT, RunFolder, epoch_file

Sources = Mapping[str, Source]
EVALUATION = "evaluation"  # among the parts that a segment says were compiled


def to_leave(cell: Cell, sources: Sources, *, left: Collection[str]) -> set[int]:
    """Return the epochs after which a run is to leave its checkpoint.

    Args:
        cell: the run.
        sources: of all runs of the table.
        left: the fingerprints of those that are still to be made.
    """
    return {
        source.epochs
        for run, source in sources.items()
        if run in left and not source.is_whole and source.cell.fingerprint == cell.fingerprint
    }


def is_there(cell: Cell, source: Source) -> bool:
    """Return whether what a run begins with is there: the result, or the checkpoint on the way.

    What other code has made is of no use, and counts as absent.
    """
    return _has_left(source) and not is_outdated(source.cell) and not _differ(cell, source)


def begins_there(cell: Cell, source: Source, *, left: Collection[str], renew: bool) -> bool:
    """Return whether a run begins in its source: now, or once that is so far.

    Args:
        cell: the run.
        source: of this run.
        left: the fingerprints of the runs that are still to be made.
        renew: whether what other code has made is made again.
    """
    if _has_begun(cell, renew=renew):
        return False
    if is_there(cell, source):
        return True
    if source.cell.fingerprint not in left:
        return False
    if is_outdated(source.cell):
        return renew
    return _may_leave(source) and not _differ(cell, source)


def shares_to_train(left: Sequence[Cell], sources: Sources, *, renew: bool = False) -> list[float]:
    """Return which share of its epochs each run that is left trains itself.

    Args:
        left: the runs that are still to be made.
        sources: of all runs of the table.
        renew: whether what other code has made is made again.
    """
    waiting = {cell.fingerprint for cell in left}
    shares = []
    for cell in left:
        source, taken = sources.get(cell.fingerprint), 0
        if _has_begun(cell, renew=renew):
            taken = _taken_over(cell)
        elif source is not None and begins_there(cell, source, left=waiting, renew=renew):
            taken = source.epochs
        shares.append(1 - taken / cell.config.schedule.epochs)
    return shares


def begin_where_it_was(cell: Cell, source: Source) -> None:
    """Give a run that has not begun the weights and epochs that it has in common with another.

    Its environment.json then names that run as ``trained_as``, with the number of epochs as
    ``shared_epochs`` unless they are all. Where what it begins with is not there or cannot be
    copied, nothing is, and the run trains as any other does. Processes that copy into one folder
    wait for each other.

    Args:
        cell: the run; where its folder exists, nothing is done.
        source: of this run.
    """
    ours = RunFolder(cell.folder)
    environment = read_json(RunFolder(source.cell.folder).environment)
    if ours.path.exists() or environment is None or not is_there(cell, source):
        return
    partial = RunFolder(ours.path.with_name(f".{ours.path.name}.tmp"))
    partial.path.parent.mkdir(parents=True, exist_ok=True)
    with locked(partial.path.parent):  # the lock of a killed process has fallen with it
        if ours.path.exists():
            return
        try:
            _copy(partial, cell=cell, source=source, environment=environment)
            partial.path.rename(ours.path)
        except (OSError, ValueError):  # a full disk, a damaged checkpoint, a run begun meanwhile
            shutil.rmtree(partial.path, ignore_errors=True)


def remove_unneeded(cells: Iterable[Cell], sources: Sources, *, left: Collection[str]) -> None:
    """Remove the checkpoints that some runs have left and in which no run is to begin any more.

    Args:
        cells: the runs.
        sources: of all runs of the table.
        left: the fingerprints of those that are still to be made.
    """
    for cell in cells:
        checkpoints = RunFolder(cell.folder).checkpoints
        needed = {epoch_file(checkpoints, n) for n in to_leave(cell, sources, left=left)}
        for file in set(checkpoints.glob(LEFT)) - needed:
            with contextlib.suppress(OSError):
                file.unlink()


def _left(source: Source) -> Path:
    return epoch_file(RunFolder(source.cell.folder).checkpoints, source.epochs)


def _has_left(source: Source) -> bool:
    folder = RunFolder(source.cell.folder)
    if source.is_whole:
        return folder.summary.exists() and any(folder.checkpoints.glob("*.pt"))
    return _left(source).exists() and len(folder.rows()) >= source.epochs


def _may_leave(source: Source) -> bool:
    """Return whether a run that is still to be finished can leave what another begins with.

    One that is further, and has not left it, was begun without being asked to. Where nobody is at
    work on it, it goes on from its newest checkpoint, and its lines may be ahead of that.
    """
    folder = RunFolder(source.cell.folder)
    logged = len(folder.rows())
    if source.is_whole or logged < source.epochs:
        return True
    if folder.summary.exists():
        return False
    if folder.is_owned():
        return logged == source.epochs  # the checkpoint comes after the line

    from engine.training.checkpoint import load_latest

    state = load_latest(folder.checkpoints).state
    return state is None or state["epoch"] < source.epochs


def _has_begun(cell: Cell, *, renew: bool) -> bool:
    """Return whether a run goes on from what is in its folder."""
    return RunFolder(cell.folder).path.exists() and not (renew and is_outdated(cell))


def _taken_over(cell: Cell) -> int:
    """Return how many epochs a run that has begun has taken over from another."""
    environment = read_json(RunFolder(cell.folder).environment) or {}
    if "trained_as" not in environment:
        return 0
    number: int = environment.get("shared_epochs", cell.config.schedule.epochs)
    return number


def _differ(cell: Cell, source: Source) -> bool:
    """Return whether the two predict validation differently, on a split that the data brought."""
    taus = {one.config.evaluate.logit_adjustment for one in (cell, source.cell)}
    if len(taus) == 1:
        return False
    return _has_validation(read_json(RunFolder(source.cell.folder).environment) or {})


def _has_validation(environment: Mapping[str, Any]) -> bool:
    return bool(environment.get("facts", {}).get("val_images"))


def _copy(
    partial: RunFolder, *, cell: Cell, source: Source, environment: Mapping[str, Any]
) -> None:
    """Write what the run takes over, in the place of what a killed process has left there.

    Raises:
        OSError: it cannot be read or written.
        ValueError: the checkpoint is damaged.
    """
    theirs = RunFolder(source.cell.folder)
    shutil.rmtree(partial.path, ignore_errors=True)
    rows = [_logged(row, cell) for row in theirs.rows()[: source.epochs]]
    if source.is_whole:
        ignore = shutil.ignore_patterns(LEFT)
        shutil.copytree(theirs.checkpoints, partial.checkpoints, ignore=ignore)
    else:
        from engine.training.checkpoint import hand_over

        partial.checkpoints.mkdir(parents=True)
        chosen = _chosen(cell, rows, has_validation=_has_validation(environment))
        hand_over(_left(source), partial.checkpoints, epoch=source.epochs, chosen=chosen)
    write_text(partial.metrics, "".join(f"{json.dumps(row)}\n" for row in rows))
    own: dict[str, Any] = {"fingerprint": cell.fingerprint}
    own |= {"wandb_id": new_run_id(cell.fingerprint)}
    own |= {"group": fingerprint(cell.config, without_seeds=True)}
    own |= {"trained_as": source.cell.fingerprint}
    own |= {"segments": list(_segments(environment, cell=cell, source=source))}
    own |= {} if source.is_whole else {"shared_epochs": source.epochs}
    left_out = ("shared_epochs", "lost_segments")
    taken = {key: value for key, value in environment.items() if key not in left_out}
    write_json(partial.environment, {**taken, **own})


def _chosen(
    cell: Cell, rows: Iterable[Mapping[str, Any]], *, has_validation: bool
) -> dict[str, int]:
    """Return the epochs that the rules of a run would have chosen after some lines, by rule."""
    from engine.training.selection import Kept, Selection

    selection = Selection.of(cell.config, has_validation=has_validation)
    best: dict[str, Kept] = {}
    for row in rows:
        best = selection.update(best, row, weights=dict)
    return {rule: kept["epoch"] for rule, kept in best.items()}


def _logged(row: Mapping[str, Any], cell: Cell) -> Mapping[str, Any]:
    """Return an epoch's line as the run would have written it: without test, unless it looks."""
    if cell.config.evaluate.test_every_epoch:
        return row
    return {key: value for key, value in row.items() if not key.startswith("test/")}


def _segments(
    environment: Mapping[str, Any], *, cell: Cell, source: Source
) -> Iterator[dict[str, Any]]:
    """Yield the stretches of the epochs that are taken over, each with the run that it is of.

    Where the code of today made them, the hash is that of the files that this run uses: what it has
    of its own, such as the file of its loss, does nothing in these epochs.
    """
    today = {code_now(source.cell): code_now(cell)}
    looks_on = _has_validation(environment) or cell.config.evaluate.test_every_epoch
    for segment in environment["segments"]:
        if not source.is_whole and segment["from_epoch"] >= source.epochs:
            continue
        own = {"run": segment.get("run", source.cell.fingerprint)}
        own |= {"code_hash": today.get(segment["code_hash"], segment["code_hash"])}
        if not looks_on:  # a compiled evaluation, if any, was that of lines which it does not have
            parts = [part for part in segment["compiled"].split(" and ") if part != EVALUATION]
            own |= {"compiled": " and ".join(parts) or "nothing"}
        yield {**segment, **own}
