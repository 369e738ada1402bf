"""What the page of a run says: read from its folder, in the order in which it is shown."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.config.load import defaults, dump, flatten
from engine.config.messages import counted, one_line, shown
from engine.report.page import charts, tiles
from engine.report.page.data_card import DataCard, data_card
from engine.report.page.parts import Section
from engine.report.reading import Predictions, Run, predictions
from engine.report.seeds import measures
from engine.report.statistics import DASH
from engine.training.metrics.groups import Limits
from engine.training.run_folder import RunFolder
from engine.training.summary import ClassResult, Summary

if TYPE_CHECKING:
    from engine.training.repeats import Repeats

MATRIX_CLASSES = 30  # up to so many a confusion matrix can be read
PAIRS = 50  # confusions listed
UNFOLDED = 40  # classes up to which all groups are open at first


class Fact(NamedTuple):
    """A line of what made the numbers."""

    term: str
    text: str
    is_code: bool = False


class Group(NamedTuple):
    """The classes of one group, by falling training count."""

    name: str
    meaning: str
    classes: list[ClassResult]
    recall: float | None


class Pair(NamedTuple):
    """Images of one class that were taken for another."""

    true: str
    predicted: str
    images: int
    share: float


class Matrix(NamedTuple):
    """Counts of true (rows) against predicted classes, and each as a share of its row."""

    names: list[str]
    labels: list[int]
    counts: list[list[int]]
    shares: list[list[float]]


@dataclass(frozen=True)
class Page:
    """Everything on the page of a run.

    Attributes:
        title: of the data set.
        method: the loss and the choices beside it.
        summary: of the run.
        facts: what made the numbers.
        card: what the data are and their test split can show; None without training images.
        metrics: a row a metric: its name and its test value by each rule.
        groups: the classes.
        limits: how many training images are many, medium and few.
        is_folded: whether the groups are closed at first.
        curves: over the epochs.
        recalls: of the classes against their training images.
        calibration: of the headline's predictions of test, or None.
        matrix: confusions, of few classes.
        pairs: most frequent confusions.
        mistakes: the images on which the run was wrong and most confident.
        remark: why there are no images, or nothing.
        config: the whole config as YAML.
        sections: what else is said of the run.
    """

    title: str
    method: str
    summary: Summary
    facts: list[Fact]
    card: DataCard | None
    metrics: list[tuple[str, list[str]]]
    groups: list[Group]
    limits: str
    is_folded: bool
    curves: list[charts.Curves]
    recalls: charts.Recalls | None
    calibration: charts.Calibration | None
    matrix: Matrix | None
    pairs: list[Pair]
    mistakes: list[tiles.Tile]
    remark: str
    config: str
    sections: Sequence[Section] = ()


def page_of(
    run: Run,
    *,
    test: tiles.Split | None = None,
    remark: str = "",
    repeats: Repeats | None = None,
    sections: Sequence[Section] = (),
) -> Page:
    """Return what the page of a finished run says.

    Args:
        run: from :func:`engine.report.reading.read_run`.
        test: its test split, where the images are at hand.
        remark: why they are not.
        repeats: images of its data that are there more than once; None where nobody looked.
        sections: what else is said of the run.

    Raises:
        ConfigError: its predictions of test are missing or damaged.
    """
    summary, result = run.summary, run.summary.result
    rows = RunFolder(run.folder).rows()
    said = predictions(run.folder)
    limits = Limits(run.config.evaluate.many_above, run.config.evaluate.few_below)
    involved = [c for c in result.classes if c.train_images or c.support]
    predicted = said.rows.predictions
    pairs = list(_pairs(said, predicted))
    return Page(
        title=summary.title,
        method=_method(run),
        summary=summary,
        facts=list(_facts(run, rows)),
        card=data_card(run, repeats=repeats),
        metrics=list(_metrics(summary)),
        groups=list(_groups(involved, limits)),
        limits=limits.text,
        is_folded=len(involved) > UNFOLDED,
        curves=charts.learning_curves(rows, epoch=result.epoch),
        recalls=charts.recall_by_count(involved),
        calibration=charts.calibration(said.rows.reliability(said.targets)),
        matrix=_matrix(said, predicted, [c.label for c in involved]),
        pairs=pairs[:PAIRS],
        mistakes=[] if test is None else list(tiles.most_confident_mistakes(said, test)),
        remark=remark,
        config=dump(run.config),
        sections=sections,
    )


def _method(run: Run) -> str:
    from engine.report.tracking import run_name

    return run_name(run.config)


def _facts(run: Run, rows: Sequence[Mapping[str, Any]]) -> Iterator[Fact]:
    config, summary, environment = run.config, run.summary, run.environment
    segments = environment["segments"]
    last = segments[-1]
    yield from _data(run)
    yield Fact("recipe", _recipe(run), is_code=True)
    yield Fact("seed", f"{config.seed}; of the training subset {config.data.imbalance.seed}")
    yield Fact("rule", summary.selection)
    yield Fact("command", _command(segments[0].get("command", ())), is_code=True)
    spent = summary.time.get("training_seconds", 0.0)
    speeds = [r["time/images_per_second"] for r in rows if r.get("time/images_per_second")]
    speed = f", {np.median(speeds):,.0f} images a second (median)" if speeds else ""
    stretches = f", in {len(segments)} stretches" if len(segments) > 1 else ""
    if (other := environment.get("trained_as")) is not None:
        number = environment.get("shared_epochs")
        stretches += f", {'all' if number is None else f'the first {number}'} of them run {other}'s"
    yield Fact(
        "cost", f"{spent:,.1f} s of training in {counted(len(rows), 'epoch')}{stretches}{speed}"
    )
    yield Fact("machine", ", ".join(_machine(last)))
    state = " with changes that no commit holds" if any(s.get("dirty") for s in segments) else ""
    commit = str(last.get("commit") or "no commit")[:12]
    yield Fact("code", f"{commit}{state}; hash {summary.code_hash}")
    versions = {"python": last.get("python"), **last.get("packages", {})}
    yield Fact("versions", ", ".join(f"{k} {v}" for k, v in versions.items() if v))
    yield Fact("run", f"{summary.fingerprint}, group {summary.group}")


def _data(run: Run) -> Iterator[Fact]:
    facts, summary = run.environment.get("facts", {}), run.summary
    counts = [count for count in summary.class_counts if count]
    if counts:
        factor = f"imbalance {max(counts) / min(counts):.4g} ({max(counts)} / {min(counts)})"
        num = counted(len(counts), "class", "classes")
        yield Fact("data", f"{summary.title}: {num}, {counted(sum(counts), 'image')}, {factor}")
    held = [(facts.get("val_images"), "validation"), (facts.get("test_images"), "test")]
    parts = [f"{number:,} {name} images" for number, name in held if number]
    yield Fact("split", ", ".join([*parts, f"fingerprint {summary.split_fingerprint}"]))


def _recipe(run: Run) -> str:
    """Return the keys that are not at their defaults, as words of train.py."""
    usual = defaults(run.config)
    named = {"data.name": run.config.data.name, "loss.name": run.config.loss.name}
    changed = {k: v for k, v in flatten(run.config).items() if v != usual[k] and k not in named}
    left_out = ("track.", "runtime.", "seed")
    own = {k: v for k, v in changed.items() if not k.startswith(left_out)}
    return " ".join(f"{key}={shown(value)}" for key, value in {**named, **own}.items())


def _command(words: Sequence[str]) -> str:
    words = list(map(str, words))
    return shlex.join(["python", *words] if words[:1] and words[0].endswith(".py") else words)


def _machine(segment: Mapping[str, Any]) -> Iterator[str]:
    for key in ("device", "processor", "precision"):
        if value := segment.get(key):
            yield str(value)
    for key, one in (("cores", "core"), ("threads", "thread"), ("processes", "process")):
        if (number := segment.get(key)) is not None:
            yield counted(number, one, "processes" if one == "process" else None)


def _metrics(summary: Summary) -> Iterator[tuple[str, list[str]]]:
    for name, heading in measures(summary).items():
        found = [result.test.get(name) for result in summary.rules.values()]
        yield heading, [DASH if value is None else f"{value:.4f}" for value in found]


def _groups(classes: Sequence[ClassResult], limits: Limits) -> Iterator[Group]:
    for name, words in limits.words.items():
        own = [c for c in classes if (c.group or "untrained") == name]
        if own:
            recalls = [c.recall for c in own if c.recall is not None]
            mean = float(np.mean(recalls)) if recalls else None
            own.sort(key=lambda c: (-c.train_images, c.label))
            yield Group(name, f"{words} training images", own, mean)


def _pairs(said: Predictions, predicted: np.ndarray) -> Iterator[Pair]:
    """Yield the confusions, the most frequent first."""
    wrong = predicted != said.targets
    found = Counter(zip(said.targets[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    support = np.bincount(said.targets, minlength=len(said.class_names))
    for (true, other), number in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        names = (one_line(said.class_names[true]), one_line(said.class_names[other]))
        yield Pair(*names, number, number / support[true])


def _matrix(said: Predictions, predicted: np.ndarray, labels: list[int]) -> Matrix | None:
    if len(labels) > MATRIX_CLASSES:
        return None
    num_classes = len(said.class_names)
    flat = np.bincount(said.targets * num_classes + predicted, minlength=num_classes**2)
    counts = flat.reshape(num_classes, num_classes)[np.ix_(labels, labels)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [one_line(said.class_names[label]) for label in labels]
    return Matrix(names, labels, counts.tolist(), shares.round(3).tolist())
