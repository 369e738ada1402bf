"""Why two runs differ: every recorded fact in which they do, from keys to hardware."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engine.analysis.stored_run import read_summary
from engine.config.load import flatten, load_run_config
from engine.config.messages import shown
from engine.config.mistakes import ConfigError
from engine.report.same_data import todays_names
from engine.training.files import read_json
from engine.training.provenance import NAMED
from engine.training.run_folder import RunFolder
from engine.training.weights_hash import is_former

MACHINE = ("device", "precision", "threads", "processes", "processor", "cores", "platform")
# Where a run is kept, and by which trackers, is no cause.
NO_CAUSE = ("track.",)
METRICS = ("balanced_accuracy", "accuracy", "nll", "ece")


class Cause(NamedTuple):
    """One fact in which two runs differ.

    Attributes:
        kind: ``keys``, ``data``, ``weights``, ``code``, ``versions`` or ``hardware``.
        name: of the fact.
        first: its value in the first run.
        second: in the second.
    """

    kind: str
    name: str
    first: str
    second: str


class Differences(NamedTuple):
    """Two runs, the causes of their difference, and how far their results are apart.

    Attributes:
        runs: the two folders.
        causes: in the order of ``Cause.kind``.
        results: (metric, first, second) on test by the rule of the headline.
        rules: the two rules.
        notes: what the causes cannot say.
    """

    runs: tuple[str, str]
    causes: list[Cause]
    results: list[tuple[str, float, float]]
    rules: tuple[str, str]
    notes: list[str]


def differences(first: Path, second: Path) -> Differences:
    """Compare what two finished runs recorded of themselves.

    Raises:
        ConfigError: one of them is not a finished run.
    """
    runs = first.expanduser(), second.expanduser()
    summaries = [read_summary(run) for run in runs]
    one, two = (_environment(run) for run in runs)
    causes = [*_keys(*runs), *_data(one, two), *_weights(one, two)]
    causes += [*_code(one, two), *_versions(one, two), *_hardware(one, two)]
    headlines = [summary.result.test for summary in summaries]
    results = []
    for name in METRICS:
        values = [headline.get(name) for headline in headlines]
        if values[0] is not None and values[1] is not None:
            results.append((name, values[0], values[1]))
    return Differences(
        (str(runs[0]), str(runs[1])),
        causes,
        results,
        (summaries[0].headline, summaries[1].headline),
        list(_notes(runs, one, two)),
    )


def _environment(run: Path) -> dict[str, Any]:
    content = read_json(RunFolder(run).environment)
    if content is None or not content.get("segments"):
        raise ConfigError([f"{run}: environment.json is missing or empty; put it back"])
    return content


def _keys(first: Path, second: Path) -> Iterator[Cause]:
    """Yield the keys of the config that differ; a key that one of them lacks is a dash."""
    one, two = (flatten(load_run_config(run, check_named_runs=False)) for run in (first, second))
    for key in dict.fromkeys([*one, *two]):
        if key.startswith(NO_CAUSE):
            continue
        values = [shown(side[key]) if key in side else "–" for side in (one, two)]
        if values[0] != values[1]:
            yield Cause("keys", key, values[0], values[1])


def _data(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[Cause]:
    """Yield whether the images, or the training images by class, are others."""
    names = todays_names(
        (side["split_fingerprint"], side.get("former_fingerprints", ())) for side in (one, two)
    )
    if not {one["split_fingerprint"], two["split_fingerprint"]} & names.keys():
        yield from _differing("data", one, two, ("split_fingerprint",))
        yield from _differing("data", one["facts"], two["facts"], ("whole_fingerprint",))
    yield from _differing("data", one["facts"], two["facts"], ("class_counts",))


def _weights(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[Cause]:
    """Yield whether other weights went in than the same named run has now."""
    first, second = one["facts"], two["facts"]
    names = tuple(n for n in NAMED if not _is_other_way(n, first.get(n), second.get(n)))
    yield from _differing("weights", first, second, names)


def _is_other_way(name: str, one: str | None, two: str | None) -> bool:
    """Return whether two hashes were had in two ways, so that their difference tells nothing."""
    if not name.endswith("_weights") or one is None or two is None:
        return False
    return is_former(one) != is_former(two)


def _code(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[Cause]:
    keys = ("code_hash", "commit", "dirty")
    first, second = one["segments"][-1], two["segments"][-1]
    yield from _differing("code", first, second, keys)
    yield from _differing("code", one, two, ("config_version",))


def _versions(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[Cause]:
    first, second = (
        {"python": side["segments"][-1]["python"], **side["segments"][-1]["packages"]}
        for side in (one, two)
    )
    yield from _differing("versions", first, second, tuple(dict.fromkeys([*first, *second])))


def _hardware(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[Cause]:
    yield from _differing("hardware", one["segments"][-1], two["segments"][-1], MACHINE)


def _differing(
    kind: str, first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, ...]
) -> Iterator[Cause]:
    for name in names:
        one, two = first.get(name), second.get(name)
        if one != two:
            yield Cause(kind, name, shown(one), shown(two))


def _notes(runs: tuple[Path, Path], *environments: Mapping[str, Any]) -> Iterator[str]:
    for run, environment in zip(runs, environments, strict=True):
        segments = environment["segments"]
        if (other := environment.get("trained_as")) is not None:
            number = environment.get("shared_epochs")
            epochs = "all its epochs" if number is None else f"its first {number} epochs"
            yield f"{run}: {epochs} are those of run {other}"
        if (own := sum("run" not in segment for segment in segments)) > 1:
            yield f"{run}: was resumed {own - 1} times; its last segment is compared"
        if any(segment.get("dirty") for segment in segments):
            yield f"{run}: was made with code that no commit holds"
