"""What a person sees: a progress bar or plain lines while it trains, and tables at the end."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from engine.config.messages import counted, one_line
from engine.report import seeds
from engine.report.statistics import DASH
from engine.training.epoch_totals import Step
from engine.training.processes import Processes
from engine.training.summary import ClassResult, Summary

CLASSES_SHOWN = 20
FILES = ("config.yaml", "environment.json", "metrics.jsonl", "summary.json", "report.html")
FOLDERS = ("figures", "predictions", "checkpoints", "wandb")
WIDE = 100  # columns from which on the bar has room for time spent and speed
COUNTS_WIDTH = 50  # class counts are listed as long as they fit into so many characters


@dataclass(frozen=True)
class Header:
    """What a run is, before it begins.

    Attributes:
        title: Of the data.
        class_counts: Training images of each class.
        num_validation: Validation images; 0 without a split.
        num_test: Test images.
        model: Its name.
        num_parameters: Numbers in the model.
        device: Where it trains, in words.
        threads: CPU threads.
        epochs: Length of training.
        steps: Optimizer steps an epoch.
        chosen_by: Validation metric that chooses the epoch, in words; None without validation.
        folder: The run folder.
        patience: Epochs without a better one that end training; None for no such end.
    """

    title: str
    class_counts: Sequence[int]
    num_validation: int
    num_test: int
    model: str
    num_parameters: int
    device: str
    threads: int
    epochs: int
    steps: int
    chosen_by: str | None
    folder: Path
    patience: int | None = None


class Terminal:
    """What one run prints; plain lines where output is not a terminal.

    Args:
        console: Where to print; by default the standard output, and nowhere in a process that is
            not the main one of its run.
        is_brief: One line for a finished run instead of its tables, as one of several seeds.
    """

    def __init__(self, console: Console | None = None, *, is_brief: bool = False) -> None:
        self.console = console or Console(
            highlight=False, soft_wrap=True, quiet=not Processes.current().is_main
        )
        self._is_brief = is_brief
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._epochs = 0

    @classmethod
    def silent(cls) -> Terminal:
        """Return one that shows nothing, for processes other than the main one."""
        return cls(Console(quiet=True))

    @property
    def _is_narrow(self) -> bool:
        return self.console.width < WIDE

    def say(self, line: str) -> None:
        """Print one line; markup and emoji codes in it stay inert.

        On a terminal, a line that is too long goes on below, between words; elsewhere it stays one.
        """
        lines = [one_line(line)]
        if self.console.is_terminal:
            lines = textwrap.wrap(
                lines[0],
                max(self.console.width, 20),
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        for part in lines or [""]:
            self.console.print(Text(part))

    def header(self, header: Header) -> None:
        """Say what is about to be trained, on what, and where it is written."""
        counts = sorted((n for n in header.class_counts if n), reverse=True)
        listed = " ".join(map(str, counts))
        if len(listed) > COUNTS_WIDTH:
            listed = f"{counts[0]} ... {counts[-1]}"
        factor = f"imbalance {counts[0] / counts[-1]:.4g} ({counts[0]} / {counts[-1]})"
        self.say(f"data    {header.title}: {counted(len(counts), 'class', 'classes')}, {factor}")
        self.say(f"        {counted(sum(counts), 'training image')}: {listed}")
        held_out = f"{header.num_validation:,} validation, " if header.num_validation else ""
        self.say(f"        {held_out}{counted(header.num_test, 'test image')}")
        self.say(f"model   {header.model}, {counted(header.num_parameters, 'parameter')}")
        self.say(f"device  {header.device}, {counted(header.threads, 'thread')}")
        chosen = f"; val is {header.chosen_by}" if header.chosen_by else ""
        length = f"{header.epochs} of {counted(header.steps, 'step')}"
        if header.patience is not None:
            waits = counted(header.patience, "epoch")
            chosen += f", and training ends after {waits} without a better"
        self.say(f"epochs  {length}{chosen}")
        self.say(f"folder  {header.folder}")

    @contextlib.contextmanager
    def training(self, *, epochs: int, done: int, total: int) -> Iterator[None]:
        """Show progress over ``total`` optimizer steps inside the block; ``done`` are behind."""
        self._epochs = epochs
        if not self.console.is_terminal:
            yield
            return
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}"),
            BarColumn(bar_width=10 if self._is_narrow else 40),
            MofNCompleteColumn(),
            TextColumn("steps"),
        ]
        if not self._is_narrow:
            columns += [TimeElapsedColumn(), TextColumn("left")]
        columns.append(TimeRemainingColumn())
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
        if not self._is_narrow:
            text += f"  {speed:,.0f} images/s"
        done = step.epoch * step.steps + step.step
        self._progress.update(self._task, completed=done, description=text)

    def epoch(self, row: Mapping[str, Any], *, metric: str, best_epoch: int | None) -> None:
        """Print one line for a finished epoch."""
        width = len(str(self._epochs))
        parts = [
            f"epoch {row['epoch']:>{width}}/{self._epochs}",
            f"loss {row['train/loss']:.4f}",
            f"lr {row['lr']:<7.2g}",
        ]
        if row.get(f"val/{metric}") is not None:
            parts.append(f"val {row[f'val/{metric}']:.4f}")
        if best_epoch is not None:
            parts.append(f"best {best_epoch:>{width}}")
        parts.append(f"{row['time/images_per_second']:,.0f} images/s")
        # One line an epoch: what does not fit is left out, the speed first.
        while self.console.is_terminal and len("  ".join(parts)) > self.console.width > 0:
            if len(parts) == 1:
                break
            parts.pop()
        self.say("  ".join(parts))

    def summary(self, summary: Summary, folder: Path, *, code_now: str) -> None:
        """Show the closing tables, what must be said about them, and where everything is."""
        if self._is_brief:
            self._summary_line(summary, folder)
            return
        if self.console.quiet:  # it would lay the tables out all the same
            return
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
        for names in (FILES, FOLDERS):
            if there := [name for name in names if (folder / name).exists()]:
                self.say("  " + "  ".join(name + "/" * (folder / name).is_dir() for name in there))

    def finished(self, summary: Summary, folder: Path, *, code_now: str) -> None:
        """Show again what a run that had finished before has come to."""
        self.say("this run is finished; --fresh runs it again")
        self.summary(summary, folder, code_now=code_now)

    def seeds(self, summaries: Sequence[Summary], *, file: Path | None = None) -> None:
        """Show mean and standard deviation over seeds, by metric and by class.

        Args:
            summaries: One a seed.
            file: Where the whole report is, every class in it.
        """
        grids = (seeds.class_grid(summaries, most=CLASSES_SHOWN), seeds.metric_grid(summaries))
        for grid in grids:
            table = _table(grid.title)
            for heading in grid.headings:
                is_text = heading in ("metric", "class", "group")
                table.add_column(heading, justify="left" if is_text else "right")
            for row in grid.rows:
                table.add_row(*(Text(cell) for cell in row))
            self.console.print()
            self.console.print(table)
        for line in seeds.remarks(summaries):
            self.say(line)
        if file is not None:
            self.say(f"report: {file}")

    def _summary_line(self, summary: Summary, folder: Path) -> None:
        result = summary.result
        value = _number(result.test.get("balanced_accuracy"))
        rule = f"rule {summary.headline}, epoch {result.epoch}"
        self.say(f"seed {summary.seed}: test balanced accuracy {value} ({rule}); {folder}")


def _table(title: str) -> Table:
    return Table(box=SIMPLE_HEAD, title_justify="left", title=Text(one_line(title)))


def _class_table(summary: Summary) -> Table:
    result = summary.result
    title = f"{summary.title}: test by class, rule {summary.headline} (epoch {result.epoch})"
    return class_table(result.classes, title=title)


def class_table(classes: Sequence[ClassResult], *, title: str) -> Table:
    """Return a row a class by falling training count; beyond twenty ten at each end of recall."""
    involved = [c for c in classes if c.train_images or c.support]
    rows = sorted(involved, key=lambda c: (-c.train_images, c.label))
    if len(rows) > CLASSES_SHOWN:
        tested = [c for c in rows if c.recall is not None]
        ranked = sorted(tested, key=lambda c: c.recall or 0.0)
        half = CLASSES_SHOWN // 2
        rows = list(dict.fromkeys(ranked[:half] + ranked[-half:]))
        title += f"; lowest and highest {half} recalls of {len(ranked)}"
    table = _table(title)
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
    table = _table("test by selection rule")
    table.add_column("metric")
    for rule, result in summary.rules.items():
        headline = ", headline" if rule == summary.headline else ""
        table.add_column(f"{rule} (epoch {result.epoch}{headline})", justify="right")
    for measure, heading in seeds.measures(summary).items():
        table.add_row(
            heading, *(_number(result.test.get(measure)) for result in summary.rules.values())
        )
    return table


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"
