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
from engine.config.schema import Config
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


@dataclass(frozen=True)
class CheckpointOptions:
    """When checkpoints are made, and what is left of them.

    Attributes:
        seconds: age of the last one, or of the run, from which on another is made inside an epoch.
        epoch_seconds: the same for the end of an epoch, where it is less; 0 for each epoch.
        keep: leave the last two of a finished run whole.
        leave: epochs (from 1) after which another one stays, as ``epoch_<n>.pt``.
    """

    seconds: float = 600.0
    epoch_seconds: float = 0.0
    keep: bool = False
    leave: Collection[int] = ()

    @classmethod
    def of(cls, config: Config, *, leave: Collection[int] = ()) -> CheckpointOptions:
        """Return the options of a run that leaves checkpoints for others after some epochs."""
        return cls(
            seconds=config.runtime.checkpoint_seconds,
            epoch_seconds=config.runtime.checkpoint_epoch_seconds,
            keep=config.track.keep_checkpoints,
            leave=leave,
        )


class Checkpointer:
    """Keeps a run's checkpoints: by the clock, on a signal, and when training is over.

    Where many processes share a run, the clock of the main one decides.

    Args:
        folder: where checkpoints go.
        trainer: whose weights and optimizer state are kept.
        progress: kept too; the caller updates it.
        interruption: asked after every step; a signal is granted after a checkpoint.
        options: when, and what.
    """

    def __init__(
        self,
        folder: Path,
        trainer: Trainer,
        *,
        progress: Progress,
        interruption: Interruption,
        options: CheckpointOptions,
    ) -> None:
        self.folder, self.trainer, self.progress = folder, trainer, progress
        self.interruption, self.options = interruption, options
        self.processes = trainer.processes
        self._saved = time.monotonic()
        self._is_behind = False  # an epoch has ended of which there is no checkpoint
        self._is_final = False  # the newest one holds the weights of a trained run alone

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
        """Write a checkpoint of this moment; all processes together.

        Raises:
            DivergenceError: the checkpoint of before stays.
        """
        self.trainer.settle()
        self.trainer.note_peaks()
        self.trainer.check_weights()
        self._write()

    def after_epoch(self, *, is_last: bool) -> None:
        """Call once ``progress`` is after an epoch: checkpoint when it is time, or training over.

        Args:
            is_last: training is over. Unless checkpoints are to be kept, this one then holds only
                what :func:`keep_weights` would leave, so that nobody needs to read it back.

        Raises:
            DivergenceError: the checkpoint of before stays.
        """
        self.trainer.check_weights()
        self._is_behind = True
        if is_last:
            self._write(is_final=not self.options.keep)
        elif self.progress.epoch in self.options.leave or self._age() >= self._epoch_age:
            self._write()

    @contextlib.contextmanager
    def before_it_ends(self) -> Iterator[None]:
        """Let nothing that the block raises after an epoch end the run without its checkpoint."""
        try:
            yield
        except Exception:
            self._catch_up()
            raise

    def finish(self) -> None:
        """Leave the weights of the rules alone, unless checkpoints are to be kept."""
        if self.options.keep or not self.processes.is_main:
            return
        if self._is_final:
            (self.folder / "previous.pt").unlink(missing_ok=True)
        else:  # training was over before this process began
            keep_weights(self.folder, epoch=self.progress.epoch)

    @property
    def _epoch_age(self) -> float:
        return min(self.options.epoch_seconds, self.options.seconds)

    def _age(self) -> float:
        return time.monotonic() - self._saved

    def _catch_up(self) -> None:
        """Write the checkpoint of the epoch that has ended, where there is none; nobody waits."""
        if self._is_behind:
            self._write()

    def _write(self, *, is_final: bool = False) -> None:
        progress = self.progress
        where = {"epoch": progress.epoch, "totals": asdict(progress.totals), "best": progress.best}
        if self.processes.is_main:
            state, base = {**self.trainer.state_dict(), **where}, self.trainer.base
            state = state if base is None else base.without(state)
            if progress.epoch in self.options.leave and not progress.totals.steps:
                _write(epoch_file(self.folder, progress.epoch), state)
            save(self.folder, _weights_only(state) if is_final else state)
        self._saved, self._is_behind, self._is_final = time.monotonic(), False, is_final

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
        is_time = self._age() > self.options.seconds
        asked, is_due = self.processes.largest(
            self.interruption.signal_number or 0, int(is_time and self.processes.is_main)
        )
        if asked or is_due:
            self.save()
        if asked:
            raise Interrupted(asked)

    def stop_if_asked(self) -> None:
        """Call between epochs, or when training is over: stop when a signal asks any process to.

        Raises:
            Interrupted: a signal came; the last epoch that has ended has its checkpoint.
        """
        (asked,) = self.processes.largest(self.interruption.signal_number or 0)
        if asked:
            self._catch_up()
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
    # What rules keep is on the CPU, and is compared with these.
    final = {key: value.detach().cpu() for key, value in final_weights(state).items()}
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
