"""Several seeds of one config: mean and standard deviation by metric and by class."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from engine.config.messages import counted, one_line
from engine.config.metrics import metrics
from engine.report.statistics import DASH, MeanAndStd, mean_and_std, spread
from engine.training.summary import Summary


class Grid(NamedTuple):
    """A table as text: its title, the headings of its columns, its rows."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def measures(summary: Summary) -> dict[str, str]:
    """Return the metrics that a run has, by name, with the group sizes in their headings."""
    return headings(summary.rules["last"].test, summary.group_sizes)


def headings(known: Collection[str], group_sizes: Mapping[str, int]) -> dict[str, str]:
    """Return the ``known`` metrics in the order of the catalogue, each by its name in words.

    The accuracy of a group without classes is none of them.
    """
    sizes = {f"{group}_accuracy": size for group, size in group_sizes.items()}
    return {
        name: metric.heading
        + (f" ({counted(sizes[name], 'class', 'classes')})" if name in sizes else "")
        for name, metric in metrics().items()
        if name in known and sizes.get(name) != 0
    }


def metric_grid(summaries: Sequence[Summary]) -> Grid:
    """Return mean, standard deviation (n - 1) and n over seeds, one column a selection rule."""
    first, n = summaries[0], len(summaries)
    rows: list[tuple[str, ...]] = []
    for name, heading in measures(first).items():
        found = [[s.rules[rule].test.get(name) for s in summaries] for rule in first.rules]
        rows.append((heading, *(_spread(values) for values in found)))
    rows.append(("n", *(str(n) for _ in first.rules)))
    title = f"{first.title}: test, mean ± std over {counted(n, 'seed')}"
    return Grid(title, ("metric", *(f"rule {rule}" for rule in first.rules)), rows)


def class_grid(summaries: Sequence[Summary], *, most: int | None = None) -> Grid:
    """Return the scores of each class over seeds, by falling training count.

    Args:
        summaries: One a seed.
        most: Show no more classes than this: those with the lowest and highest mean recalls.
    """
    first = summaries[0]
    shown = sorted(
        (c for c in first.result.classes if c.train_images or c.support),
        key=lambda c: (-c.train_images, c.label),
    )
    title = f"{first.title}: test by class, rule {first.headline}, mean ± std over seeds"
    found = {c.label: [s.result.classes[c.label] for s in summaries] for c in shown}
    if most is not None and len(shown) > most:
        recalls = {c.label: _moments([r.recall for r in found[c.label]]) for c in shown}
        means = {label: own.mean for label, own in recalls.items() if own is not None}
        tested = sorted((c for c in shown if c.label in means), key=lambda c: means[c.label])
        half = most // 2
        shown = list(dict.fromkeys(tested[:half] + tested[-half:]))
        title += f"; lowest and highest {half} recalls of {len(tested)}"
    rows = [
        (
            one_line(c.name),
            c.group or DASH,
            str(c.train_images),
            _spread([r.recall for r in found[c.label]]),
            _spread([r.precision for r in found[c.label]]),
            _spread([r.f1 for r in found[c.label]]),
        )
        for c in shown
    ]
    return Grid(title, ("class", "group", "train", "recall", "precision", "F1"), rows)


def markdown(summaries: Sequence[Summary]) -> str:
    """Return the whole report, every class in it, as Markdown."""
    lines: list[str] = []
    for grid in (metric_grid(summaries), class_grid(summaries)):
        aligned = [
            "---" if heading in ("metric", "class", "group") else "---:"
            for heading in grid.headings
        ]
        lines += [f"## {_cell(grid.title)}", ""]
        lines += [_line(row) for row in (grid.headings, aligned, *grid.rows)]
        lines.append("")
    lines += [f"- {_cell(line)}" for line in remarks(summaries)]
    runs = ", ".join(f"{s.seed}: `{s.fingerprint}`" for s in summaries)
    return "\n".join([*lines, f"- run folders by seed: {runs}", ""])


def remarks(summaries: Sequence[Summary]) -> list[str]:
    """Return what must be known about the numbers, in sentences."""
    first = summaries[0]
    seeds = ", ".join(str(s.seed) for s in summaries)
    named = f"seeds {seeds}; group {first.group}; one subset (data.imbalance.seed)"
    said_by: dict[str, list[int]] = {}
    for summary in summaries:
        for note in dict.fromkeys(summary.notes):
            said_by.setdefault(note, []).append(summary.seed)
    return [named, *(_note(note, own, num=len(summaries)) for note, own in said_by.items())]


def _note(note: str, seeds: Sequence[int], *, num: int) -> str:
    """Say whose note it is, unless it is that of all ``num`` seeds."""
    if len(seeds) == num:
        return f"note: {note}"
    return f"note, {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}: {note}"


def _spread(found: Sequence[float | None]) -> str:
    return spread(_moments(found), expected=len(found))


def _moments(found: Sequence[float | None]) -> MeanAndStd | None:
    values = [value for value in found if value is not None]
    return mean_and_std(values) if values else None


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    """Keep a class name from ending its cell."""
    return one_line(text).replace("|", "\\|")
