"""When a run's checkpoints are made: by the clock, on a signal, and when training is over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.training import checkpoint
from engine.training.divergence import DivergenceError
from engine.training.epoch_totals import EpochTotals
from engine.training.run_folder import epoch_file
from engine.training.selection import Kept
from engine.training.signals import Interrupted, Interruption
from engine.training.train_loop import Trainer


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

    def place(self, *, steps: int, is_over: bool) -> str:
        """Say where in the run this is.

        Args:
            steps: of an epoch.
            is_over: whether the epoch that has ended last was the last.
        """
        if is_over:
            return "the final predictions; training is over"
        if self.totals.steps >= steps:
            return f"epoch {self.epoch + 1}, after its last step"
        return f"epoch {self.epoch + 1}, step {self.totals.steps + 1}"


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
            Lines for the user: files that were passed over.

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
        return problems

    def _latest(self) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
        state, problems, path = checkpoint.load_latest(self.folder)
        if path == self.folder / "next.pt":  # the run was killed between the renames of save()
            checkpoint.promote(self.folder)
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
            is_last: training is over. Unless checkpoints are to be kept, this one then holds the
                weights of the selection rules alone, so that nobody needs to read it back.

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
        except BaseException:  # Ctrl-C in a notebook, too
            self._catch_up()
            raise

    def finish(self) -> None:
        """Leave the weights of the rules alone, unless checkpoints are to be kept."""
        if self.options.keep or not self.processes.is_main:
            return
        if self._is_final:
            (self.folder / "previous.pt").unlink(missing_ok=True)
        else:  # training was over before this process began
            checkpoint.keep_weights(self.folder, epoch=self.progress.epoch)

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
                checkpoint.write(epoch_file(self.folder, progress.epoch), state)
            checkpoint.save(self.folder, checkpoint.weights_only(state) if is_final else state)
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
