"""What a person sees: a progress bar or plain lines while it trains, and tables at the end."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from engine.config.messages import one_line
from engine.config.metrics import metrics
from engine.training.epoch_totals import Step
from engine.training.processes import Processes
from engine.training.summary import ClassResult, Summary

DASH = "–"
CLASSES_SHOWN = 20


class Screen:
    """The terminal of one run; plain lines where output is not a terminal.

    Args:
        console: where it prints; default the terminal, and nothing in a process that is not the
            main one of its run.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(
            highlight=False, soft_wrap=True, quiet=not Processes.current().is_main
        )
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._epochs = 0

    @classmethod
    def silent(cls) -> Screen:
        """One that shows nothing, for processes other than the main one."""
        return cls(Console(quiet=True))

    def say(self, line: str) -> None:
        """Print one line; markup and emoji codes in it stay inert."""
        self.console.print(Text(one_line(line)))

    @contextlib.contextmanager
    def training(self, *, epochs: int, done: int, total: int) -> Iterator[None]:
        """Show progress over ``total`` optimizer steps inside the block; ``done`` are behind."""
        self._epochs = epochs
        if not self.console.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as self._progress:
            self._task = self._progress.add_task("starting", total=total, completed=done)
            yield
        self._progress = None

    def step(self, step: Step) -> None:
        """Move the bar to a step."""
        if self._progress is None or self._task is None:
            return
        loss = step.totals.metrics()["loss"]
        speed = step.totals.timing()["time/images_per_second"]
        text = f"epoch {step.epoch + 1}/{self._epochs}  loss {loss:.4f}  lr {step.rate:.2g}"
        text += f"  {speed:,.0f} images/s"
        done = step.epoch * step.steps + step.step
        self._progress.update(self._task, completed=done, description=text)

    def epoch(self, row: Mapping[str, Any], *, metric: str, best_epoch: int | None) -> None:
        """One line for a finished epoch."""
        parts = [
            f"epoch {row['epoch']:>{len(str(self._epochs))}}/{self._epochs}",
            f"loss {row['train/loss']:.4f}",
            f"lr {row['lr']:<7.2g}",
        ]
        if row.get(f"val/{metric}") is not None:
            parts.append(f"val {metric.replace('_', ' ')} {row[f'val/{metric}']:.4f}")
        if best_epoch is not None:
            note = "best" if best_epoch == row["epoch"] else f"best was {best_epoch}"
            parts.append(f"{note:<{len(str(self._epochs)) + 9}}")
        parts.append(f"{row['time/images_per_second']:,.0f} images/s")
        self.say("  ".join(parts))

    def summary(self, summary: Summary, folder: Path, *, code_now: str) -> None:
        """The closing tables, what must be said about them, and where everything is."""
        self.console.print()
        self.console.print(_class_table(summary))
        self.console.print(_rule_table(summary))
        self.say(summary.selection)
        if summary.oracle is not None:
            oracle = summary.oracle
            gap = oracle.value - oracle.headline_value
            self.say(
                f"oracle (best test epoch, {oracle.epoch}): {oracle.metric} {oracle.value:.4f}, "
                f"{gap:+.4f} against the headline; never a result, shown for comparison only"
            )
        for note in summary.notes:
            self.say(f"note: {note}")
        if code_now != summary.code_hash:
            self.say(f"note: made by other code ({summary.code_hash}; now {code_now})")
        self.say(f"run folder: {folder}")
        self.say("  config.yaml  environment.json  metrics.jsonl  summary.json")
        self.say("  figures/  predictions/  checkpoints/  wandb/")

    def seeds(self, summaries: Sequence[Summary]) -> None:
        """Mean, standard deviation (n - 1) and n over seeds, by selection rule."""
        first = summaries[0]
        table = Table(
            box=SIMPLE_HEAD,
            title_justify="left",
            title=Text(one_line(f"{first.title}: test, mean ± std over {len(summaries)} seeds")),
        )
        table.add_column("metric")
        for rule in first.rules:
            table.add_column(f"rule {rule}", justify="right")
        for measure, heading in _measures(first).items():
            found = [[s.rules[rule].test.get(measure) for s in summaries] for rule in first.rules]
            table.add_row(heading, *(_mean_and_std(values) for values in found))
        table.add_row("n", *(str(len(summaries)) for _ in first.rules))
        self.console.print()
        self.console.print(table)
        seeds = ", ".join(str(s.seed) for s in summaries)
        self.say(f"seeds {seeds}; group {first.group}; one subset (data.imbalance.seed)")


def _measures(summary: Summary) -> dict[str, str]:
    """Metrics of the tables that this run has, with the group sizes in their headings."""
    known = summary.rules["last"].test
    sizes = {f"{group}_accuracy": size for group, size in summary.group_sizes.items()}
    return {
        name: metric.heading + (f" ({_classes(sizes[name])})" if name in sizes else "")
        for name, metric in metrics().items()
        if name in known
    }


def _classes(number: int) -> str:
    return "1 class" if number == 1 else f"{number} classes"


def _mean_and_std(found: Sequence[float | None]) -> str:
    values = [value for value in found if value is not None]
    if not values:
        return DASH
    text = f"{statistics.mean(values):.3f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.3f}"
    return text if len(values) == len(found) else f"{text} (n = {len(values)})"


def _class_table(summary: Summary) -> Table:
    """Classes by falling training count; beyond twenty the ten at each end of recall."""
    result = summary.result
    involved = [c for c in result.classes if c.train_images or c.support]
    rows = sorted(involved, key=lambda c: (-c.train_images, c.label))
    title = f"{summary.title}: test by class, rule {summary.headline} (epoch {result.epoch})"
    if len(rows) > CLASSES_SHOWN:
        tested = [c for c in rows if c.recall is not None]
        ranked = sorted(tested, key=lambda c: c.recall or 0.0)
        half = CLASSES_SHOWN // 2
        rows = list(dict.fromkeys(ranked[:half] + ranked[-half:]))
        title += f"; lowest and highest {half} recalls of {len(ranked)}"
    table = Table(box=SIMPLE_HEAD, title_justify="left", title=Text(one_line(title)))
    table.add_column("class")
    for heading in ("group", "train", "recall", "precision", "F1", "test"):
        table.add_column(heading, justify="left" if heading == "group" else "right")
    for row in rows:
        table.add_row(*_class_cells(row))
    return table


def _class_cells(row: ClassResult) -> list[str | Text]:
    scores = [_number(row.recall), _number(row.precision), _number(row.f1)]
    return [
        Text(one_line(row.name)),
        row.group or DASH,
        str(row.train_images),
        *scores,
        str(row.support),
    ]


def _rule_table(summary: Summary) -> Table:
    table = Table(box=SIMPLE_HEAD, title_justify="left", title="test by selection rule")
    table.add_column("metric")
    for rule, result in summary.rules.items():
        headline = ", headline" if rule == summary.headline else ""
        table.add_column(f"{rule} (epoch {result.epoch}{headline})", justify="right")
    for measure, heading in _measures(summary).items():
        table.add_row(
            heading, *(_number(result.test.get(measure)) for result in summary.rules.values())
        )
    return table


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"
