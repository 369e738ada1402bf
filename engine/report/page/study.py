"""The page of a search: its trials, what each key did, and what was confirmed."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from engine.config.messages import counted
from engine.config.metrics import metrics
from engine.config.mistakes import ConfigError
from engine.report.page import parts

TRIALS, CONFIRMED, BEST = "trials.csv", "confirm.csv", "best.yaml"
AFTER_KEYS = ("last_epoch", "seeds_trained")
MOST_KEYS = 12
MOST_CHOICES = 12  # values of a key up to which words stand on its axis
PICTURES_BYTES = 1_500_000  # of figures, all together
DRAWN_HERE = ("history", "slices")
STYLES = {
    "complete": ("circle", "many"),
    "best so far": ("square", "few"),
}

Trial = Mapping[str, str]


def is_study(folder: Path) -> bool:
    """Return whether a folder is that of a search which has written its trials."""
    return (folder / TRIALS).is_file()


def study_page(folder: Path) -> parts.Document:
    """Return the page of a search's folder.

    Raises:
        ConfigError: one of its files is damaged, or no trial has ended.
    """
    trials = _rows(folder / TRIALS)
    if not trials:
        raise ConfigError([f"{folder / TRIALS}: no trial has ended yet"])
    columns = list(trials[0])
    last = next((columns.index(name) for name in AFTER_KEYS if name in columns), len(columns))
    names = [name for name in columns[:last] if name.startswith("val/")]
    keys = [name for name in columns[:last] if name not in ("trial", "outcome", *names)]
    if not names:
        raise ConfigError([f"{folder / TRIALS}: has no validation metric"])
    done = [trial for trial in trials if _number(trial[names[0]]) is not None]
    sections = [parts.Section("Trials", list(_history(done, names)))]
    if done and keys:
        sections.append(parts.Section("Slices", list(_slices(done, names[0], keys[:MOST_KEYS]))))
    if pictures := list(_pictures(folder / "figures")):
        sections.append(parts.Section("Figures", pictures))
    if (folder / CONFIRMED).is_file() and (confirmed := _rows(folder / CONFIRMED)):
        sections.append(parts.Section("Confirmed", [_table(confirmed, "")]))
    sections.append(parts.Section("Every trial", [_table(trials, "")]))
    subtitle = f"a search by {', '.join(names)}"
    return parts.Document(folder.name, subtitle, list(_facts(folder, trials, names[0])), sections)


def _rows(file: Path) -> list[Trial]:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            rows: list[Trial] = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError([f"{file}: cannot be read: {error}"]) from error
    if any(None in row or None in row.values() for row in rows):
        raise ConfigError([f"{file}: is damaged: its lines differ in length"])
    return rows


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{file}: cannot be read: {error}"]) from error


def _facts(folder: Path, trials: Sequence[Trial], metric: str) -> Iterator[tuple[str, str]]:
    outcomes = [trial.get("outcome", "") for trial in trials]
    counts = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in dict.fromkeys(outcomes))
    yield "trials", f"{counted(len(trials), 'trial')}: {counts}"
    spent = [_number(trial.get("seconds", "")) for trial in trials]
    yield "cost", f"{sum(s for s in spent if s is not None):,.0f} s in trials"
    best = _best(trials, metric)
    if best is not None:
        yield (
            "best trial",
            f"{best['trial']}, {metric} {_short(best[metric])}, chosen by validation",
        )
    if (folder / BEST).is_file():
        said = [line[1:].strip() for line in _lines(folder / BEST) if line.startswith("#")]
        if said:
            yield BEST, "; ".join(said)


def _best(trials: Sequence[Trial], metric: str) -> Trial | None:
    done = [(value, t) for t in trials if (value := _number(t[metric])) is not None]
    return max(done, key=lambda pair: _sign(metric) * pair[0])[1] if done else None


def _sign(metric: str) -> float:
    """Return 1 where more of a metric is better, else -1."""
    row = metrics().get(metric.removeprefix("val/"))
    return -1.0 if row is not None and row.better == "min" else 1.0


def _history(done: Sequence[Trial], names: Sequence[str]) -> Iterator[parts.Part]:
    for metric in names:
        values, best = [], None
        for trial in done:
            value = _number(trial[metric])
            if value is None:
                continue
            is_best = best is None or _sign(metric) * (value - best) > 0
            best = value if is_best else best
            kind = "best so far" if is_best else "complete"
            at = _number(trial["trial"])
            values.append((at or 0.0, value, kind, _said(trial, metric)))
        chart = parts.points(metric, values, x_title="trial", styles=STYLES)
        if chart is not None:
            yield chart


def _slices(done: Sequence[Trial], metric: str, keys: Sequence[str]) -> Iterator[parts.Part]:
    for key in keys:
        having = [trial for trial in done if trial[key] != ""]
        numbers = [_number(trial[key]) for trial in having]
        words: dict[str, float] = {}
        if any(number is None for number in numbers):
            choices = sorted({trial[key] for trial in having})
            if len(choices) > MOST_CHOICES:
                continue
            words = {choice: float(place) for place, choice in enumerate(choices)}
            numbers = [words[trial[key]] for trial in having]
        values = [
            (at, value, "complete", _said(trial, metric))
            for at, trial in zip(numbers, having, strict=True)
            if at is not None and (value := _number(trial[metric])) is not None
        ]
        named = {place: choice for choice, place in words.items()} or None
        chart = parts.points(metric, values, x_title=key, names=named, styles=STYLES)
        if chart is not None:
            yield chart


def _said(trial: Trial, metric: str) -> str:
    left_out = ("trial", "outcome", "run", "seconds", "last_value", *AFTER_KEYS, metric)
    keys = [f"{k}={_short(v)}" for k, v in trial.items() if k not in left_out and v != ""]
    return "\n".join([f"trial {trial['trial']}: {metric} {_short(trial[metric])}", *keys])


def _pictures(folder: Path) -> Iterator[parts.Picture]:
    """Yield the study's own figures, as long as the page stays small; the charts are here anew."""
    left = PICTURES_BYTES
    for file in sorted(folder.glob("*.png")) if folder.is_dir() else ():
        size = file.stat().st_size
        if file.stem not in DRAWN_HERE and size <= left:
            left -= size
            yield parts.picture(file)


def _table(rows: Sequence[Trial], title: str) -> parts.Table:
    columns = list(rows[0])
    cells = [[_short(row[name]) for name in columns] for row in rows]
    words = [any(row[name] and _number(row[name]) is None for row in rows) for name in columns]
    num_text = words.index(False) if False in words else len(columns)
    return parts.Table(title, columns, cells, num_text=num_text)


def _number(text: str) -> float | None:
    """Return a finite number, None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


def _short(text: str) -> str:
    """Return a number in six digits, other text as it is.

    >>> _short("0.8150000000000001"), _short("12"), _short("sgd")
    ('0.815', '12', 'sgd')
    """
    value = _number(text)
    return text if value is None or text.lstrip("-").isdigit() else f"{value:.6g}"
