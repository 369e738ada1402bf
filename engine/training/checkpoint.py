"""Checkpoints: whole or absent, the previous one kept, loaded without running any code."""

from __future__ import annotations

import contextlib
import io
import pickle
import time
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.config.mistakes import ConfigError
from engine.training.divergence import DivergenceError
from engine.training.epoch_totals import EpochTotals
from engine.training.files import write_bytes
from engine.training.run_folder import epoch_file
from engine.training.selection import Kept
from engine.training.signals import Interrupted, Interruption
from engine.training.train_loop import Trainer

FORMAT = 1


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: epochs that are done.
        totals: sums over the part of the next epoch that is done.
        best: what each selection rule would choose now, by its name.
    """

    epoch: int = 0
    totals: EpochTotals = field(default_factory=EpochTotals)
    best: dict[str, Kept] = field(default_factory=dict)

    def num_steps(self, steps: int) -> int:
        """Return how many steps are behind, of which an epoch has ``steps``."""
        return self.epoch * steps + self.totals.steps

    @property
    def has_begun(self) -> bool:
        """Whether any step is behind."""
        return self.epoch > 0 or self.totals.steps > 0


class Begun(NamedTuple):
    """Weights that a run goes on with.

    Attributes:
        state: of its model.
        is_whole: whether that is all of it, or what a light run's checkpoint holds.
    """

    state: Mapping[str, Tensor]
    is_whole: bool


def begun(folder: Path) -> Begun | None:
    """Return the weights of the newest whole checkpoint of a folder; None if there is none."""
    state, _, _ = load_latest(folder)
    if state is None:
        return None
    weights = state["ema"] if state["model"] is None else state["model"]
    return Begun(weights, is_whole="base" not in state)


class Checkpointer:
    """Keeps a run's checkpoints: after every epoch, by the clock inside one, and on a signal.

    Args:
        folder: where checkpoints go.
        trainer: whose weights and optimizer state are kept.
        progress: kept too; the caller updates it.
        interruption: asked after every step; a signal is granted after a checkpoint.
        seconds: time between checkpoints inside an epoch.
        leave: epochs (from 1) after which another stays, as ``epoch_<n>.pt``.
    """

    def __init__(
        self,
        folder: Path,
        trainer: Trainer,
        *,
        progress: Progress,
        interruption: Interruption,
        seconds: float,
        leave: Collection[int] = (),
    ) -> None:
        self.folder, self.trainer, self.progress = folder, trainer, progress
        self.interruption, self.seconds, self.leave = interruption, seconds, leave
        self.processes = trainer.processes
        self._saved = time.monotonic()

    def resume(self, *, has_begun: bool = False) -> tuple[str, ...]:
        """Load the newest whole checkpoint, if any.

        Args:
            has_begun: whether the model was made from a checkpoint of the folder, as it was before
                this process owned it.

        Returns:
            Lines for the user: files that were passed over, and where training goes on.

        Raises:
            ConfigError: that checkpoint is not there any more.
        """
        state, problems = self.processes.on_main(self._latest)
        progress = self.progress
        if state is None and has_begun:
            run = self.folder.parent
            raise ConfigError(
                [f"{run}: was set aside by another process just now; run the command again"]
            )
        if state is None:
            return problems
        if "base" in state and self.trainer.base is not None:
            state = self.trainer.base.within(state, where=str(self.folder.parent))
        self.trainer.load_state_dict(state)
        progress.epoch, progress.totals = state["epoch"], EpochTotals.of(state["totals"])
        progress.best = state["best"]
        if not progress.has_begun:
            return problems
        where = f"epoch {progress.epoch + 1}, step {progress.totals.steps + 1}"
        return (*problems, f"resuming at {where}")

    def _latest(self) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
        state, problems, path = load_latest(self.folder)
        if path == self.folder / "next.pt":  # the run was killed between the renames of save()
            _promote(self.folder)
        return state, problems

    def save(self) -> None:
        """Write a checkpoint of this moment.

        Raises:
            DivergenceError: the checkpoint of before stays.
        """
        self.trainer.settle()
        self.trainer.note_peaks()
        self.trainer.check_weights()
        progress = self.progress
        where = {"epoch": progress.epoch, "totals": asdict(progress.totals), "best": progress.best}
        if self.processes.is_main:
            state, base = {**self.trainer.state_dict(), **where}, self.trainer.base
            state = state if base is None else base.without(state)
            if progress.epoch in self.leave and not progress.totals.steps:
                _write(epoch_file(self.folder, progress.epoch), state)
            save(self.folder, state)
        self._saved = time.monotonic()

    def finish(self, *, keep: bool) -> None:
        """Leave of the checkpoints, now that training is over, the weights of the rules alone.

        Args:
            keep: leave them as they are.
        """
        if self.processes.is_main and not keep:
            keep_weights(self.folder, epoch=self.progress.epoch)

    @contextlib.contextmanager
    def named_on_divergence(self) -> Iterator[None]:
        """Add to a divergence error where the last good checkpoint is, and what to try."""
        try:
            yield
        except DivergenceError as error:
            last = self.folder / "last.pt"
            kept = f"last good checkpoint: {last}" if last.exists() else "no checkpoint was made"
            error.add_note(kept)
            error.add_note("a lower optim.lr or optim.clip_norm=1 may help")
            raise

    def poll(self) -> None:
        """Call between steps: checkpoint when it is time, stop when a signal asks.

        Raises:
            Interrupted: a signal came; the checkpoint is written.
        """
        is_time = time.monotonic() - self._saved > self.seconds
        asked, is_due = self.processes.largest(
            self.interruption.signal_number or 0, int(is_time and self.processes.is_main)
        )
        if asked or is_due:
            self.save()
        if asked:
            raise Interrupted(asked)

    def stop_if_asked(self) -> None:
        """Stop when a signal has come to any of the processes, without a checkpoint.

        Raises:
            Interrupted: see there.
        """
        (asked,) = self.processes.largest(self.interruption.signal_number or 0)
        if asked:
            raise Interrupted(asked)


class Checkpoint(NamedTuple):
    """The state, lines for the user on files that were passed over, and the file it is from."""

    state: dict[str, Any] | None
    problems: tuple[str, ...]
    path: Path | None


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write ``last.pt``; the one before becomes ``previous.pt``.

    A crash at any moment leaves at least one of the two whole.
    """
    _write(folder / "next.pt", state)
    _promote(folder)


def hand_over(left: Path, folder: Path, *, epoch: int, chosen: Mapping[str, int]) -> None:
    """Make a checkpoint that one run has left after an epoch the newest one of another.

    Args:
        left: the checkpoint.
        folder: of the other's checkpoints.
        epoch: how many epochs it must have behind it.
        chosen: the epochs that the other's selection rules would have chosen by then.

    Raises:
        ValueError: it is damaged, or not such a checkpoint.
    """
    state = _read(left)
    if state["epoch"] != epoch or state["totals"]["steps"] or state["optimizer"] is None:
        raise ValueError(f"not the checkpoint after epoch {epoch}")
    best = {rule: kept for rule, kept in state["best"].items() if rule in chosen}
    if {rule: kept["epoch"] for rule, kept in best.items()} != chosen:
        raise ValueError(f"does not hold the weights of epochs {chosen}")
    save(folder, {**state, "best": best})


def keep_weights(folder: Path, *, epoch: int) -> None:
    """Leave only ``last.pt``, and in it only what predicts: the weights of the selection rules.

    Optimizer state goes, and with an average the weights that it is of. A crash at any moment
    leaves the weights, and the same call goes on from there.

    Args:
        folder: of the checkpoints.
        epoch: epochs that were trained; where the newest whole checkpoint is of another, nothing
            is done.
    """
    last = folder / "last.pt"
    state, _, path = load_latest(folder)
    if state is None or path != last or state["epoch"] != epoch:
        return
    (folder / "previous.pt").unlink(missing_ok=True)  # first: a full disk gets room
    if state["optimizer"] is not None:
        _write(folder / "next.pt", _weights_only(state))
        (folder / "next.pt").replace(last)


def final_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights at a checkpoint's moment that are evaluated: averaged where they are."""
    weights: dict[str, Tensor] = state["model"] if state["ema"] is None else state["ema"]
    return weights


def _weights_only(state: Mapping[str, Any]) -> dict[str, Any]:
    final = final_weights(state)
    best = {
        # One storage is written once.
        rule: {**kept, "state": final if _is_same(kept["state"], final) else kept["state"]}
        for rule, kept in state["best"].items()
    }
    model = final if state["ema"] is None else None
    return {**state, "model": model, "best": best, "optimizer": None, "scaler": None}


def _is_same(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return weights.keys() == others.keys() and all(
        torch.equal(value, others[key]) for key, value in weights.items()
    )


def _write(path: Path, state: Mapping[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save({**state, "format": FORMAT}, buffer)
    write_bytes(path, buffer.getvalue())


def _promote(folder: Path) -> None:
    last = folder / "last.pt"
    if last.exists():
        last.replace(folder / "previous.pt")
    (folder / "next.pt").replace(last)


def load_latest(folder: Path) -> Checkpoint:
    """Load the newest whole checkpoint of a folder to the CPU; its state is None if there is none.

    A truncated, damaged or foreign file is named and passed over.
    """
    problems: list[str] = []
    for name in ("next.pt", "last.pt", "previous.pt"):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = _read(path)
        except ValueError as error:
            problems.append(f"{path}: {error}")
        else:
            using = tuple(f"{problem}; using {path.name}" for problem in problems)
            return Checkpoint(state, using, path)
    return Checkpoint(None, tuple(problems), None)


def _read(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"damaged (checksum of {damaged} does not match)")
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        raise ValueError("truncated or damaged") from error
    except pickle.UnpicklingError as error:
        raise ValueError("refused, it holds more than plain tensors and values") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"not a checkpoint of this format ({FORMAT})")
    return {**state, "best": _by_rule(state.get("best"))}


def _by_rule(best: dict[str, Any] | None) -> dict[str, Any]:
    """Return what rules keep, by name; old checkpoints hold only that of the rule ``val``."""
    if not best:
        return {}
    return {"val": best} if "state" in best else best
