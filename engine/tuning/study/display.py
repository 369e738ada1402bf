"""What a person sees of a search: a live table in a terminal, else one line a trial that ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from engine.config.messages import one_line, shown
from engine.report.statistics import DASH
from engine.tuning.study.trials import ended_trials, outcome_of

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial
    from rich.console import RenderableType


REFRESH = 1.0  # seconds between looks at the storage


class Display:
    """The terminal of a search.

    Args:
        metrics: names of what is searched for, in the order of the study's directions.
        num_trials: parameter sets to end, None where only time ends the search.
        console: where to print; default the terminal.
    """

    def __init__(
        self, metrics: Sequence[str], *, num_trials: int | None, console: Console | None = None
    ) -> None:
        self.metrics, self.num_trials = metrics, num_trials
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._said: set[int] = set()
        self._began, self._ended_before, self._looked = time.monotonic(), 0, 0.0
        self._confirmed: set[tuple[str, int]] = set()
        self._epochs: dict[int, str] = {}  # of the trials that this process runs

    def say(self, line: str) -> None:
        """Print one line above the table; markup in it stays inert."""
        self.console.print(Text(one_line(line)))

    def begin(self, study: optuna.Study) -> None:
        """Note the trials that have ended already, so that they are not reported again."""
        before = ended_trials(study)
        self._said = {trial.number for trial in before}
        self._began, self._ended_before = time.monotonic(), len(before)
        if before:
            self.say(f"{len(before)} of {self._wanted()} trials have ended already")

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Show a table that moves inside the block, where the output is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, refresh_per_second=4) as self._live:
            yield
        self._live = None

    def epoch(self, number: int, epoch: int, epochs: int) -> None:
        """Note that trial ``number`` of this process has finished an epoch."""
        self._epochs = {number: f"trial {number}: epoch {epoch}/{epochs}"}

    def show(self, study: optuna.Study) -> None:
        """Update the display with the state of the study."""
        trials = study.get_trials(deepcopy=False)
        for trial in sorted(trials, key=lambda trial: trial.number):
            if outcome_of(trial) is not None and trial.number not in self._said:
                self._said.add(trial.number)
                if self._live is None:
                    self.say(self._line(trial, study))
        if self._live is not None:
            self._live.update(self._table(study, trials))

    def show_at_times(self, study: optuna.Study) -> None:
        """Do as :meth:`show`, but not more often than once a second."""
        if time.monotonic() - self._looked >= REFRESH:
            self.show(study)
            self._looked = time.monotonic()

    def confirm(self, name: str, seed: int, remaining: int) -> None:
        """Say that a run of the confirm stage begins: a setting's name and its fresh seed."""
        line = f"confirm: {name}, seed {seed} ({remaining} left)"
        self._epochs = {-1: line}
        if self._live is None and (name, seed) not in self._confirmed:
            self.say(line)
        self._confirmed.add((name, seed))  # a run that another process is writing comes up again

    def close(self, shown: Sequence[RenderableType]) -> None:
        """Print what the search ends with."""
        for part in shown:
            if isinstance(part, str):
                self.say(part)
            else:
                self.console.print(part)

    # --- parts -----------------------------------------------------------------------------------

    def _line(self, trial: FrozenTrial, study: optuna.Study) -> str:
        values = " ".join(f"{value:.4f}" for value in trial.values or ())
        outcome = outcome_of(trial)
        found = f"{values or outcome} " if outcome == "complete" else f"{outcome} "
        ended = ended_trials(study)
        done = sum(other.number <= trial.number for other in ended)
        parts = [f"trial {trial.number:>3} ({done}/{self._wanted()})", found]
        parts += [f"{key}={_value(value)}" for key, value in trial.params.items()]
        if (best := self._best(study)) is not None:
            parts.append(f" best {best}")
        return "  ".join(parts)

    def _best(self, study: optuna.Study) -> str | None:
        complete = [trial for trial in ended_trials(study) if outcome_of(trial) == "complete"]
        if not complete:
            return None
        if len(self.metrics) > 1:
            return f"{len(study.best_trials)} on the Pareto front"
        best = study.best_trial
        return f"{best.value:.4f} (trial {best.number})"

    def _wanted(self) -> str:
        return "?" if self.num_trials is None else str(self.num_trials)

    def _table(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> Table:
        outcomes = [outcome_of(trial) for trial in trials]
        running = sum(trial.state.name == "RUNNING" for trial in trials)
        failed = sum(outcome in ("non-finite", "out of memory") for outcome in outcomes)
        ended = sum(outcome is not None for outcome in outcomes)
        cells = {
            "done": f"{ended}/{self._wanted()}",
            "running": str(running),
            "pruned": str(outcomes.count("pruned")),
            "failed": str(failed),
            "best so far": self._best(study) or DASH,
            "left": self._left(ended),
        }
        caption = Text("  ".join(self._epochs.values()))
        table = Table(*cells, box=SIMPLE_HEAD, caption=caption, caption_justify="left")
        table.add_row(*cells.values())
        return table

    def _left(self, ended: int) -> str:
        """Return the time until all have ended, at the pace of this session."""
        new = ended - self._ended_before
        if self.num_trials is None or new <= 0:
            return DASH
        seconds = (time.monotonic() - self._began) / new * max(self.num_trials - ended, 0)
        return str(timedelta(seconds=round(seconds)))


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shown(value)
