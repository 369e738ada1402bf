"""A results line: what one finished run of a table gave, and everything that made it.

``experiments/results/<table>.jsonl`` holds one JSON line a run. ``reproduce.py`` adds them
as runs finish, ``engine.tables.table`` reads them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.config.load import load_run_config
from engine.config.mistakes import ConfigError
from engine.report.same_data import todays_names
from engine.training.files import WriteError, read_json, write_text
from engine.training.run_folder import RunFolder
from engine.training.summary import Cost, Oracle, RuleResult, Scalars, Summary


class RuleRecord(BaseModel):
    """What one selection rule gave: test scalars, and recall in label order.

    ``val`` is None without a validation split; undefined values are None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int
    val: Scalars | None
    test: Scalars
    recall: tuple[float | None, ...]


class RunRecord(BaseModel):
    """One finished run of a table.

    Attributes:
        table: name of the table; ``method`` and ``setting`` name its row and column.
        words: files and ``key=value`` words: ``python train.py <words>`` is this run.
        fingerprint: the run; ``group`` is the same without the seeds.
        seed: of model and batch order; ``subset_seed`` (data.imbalance.seed) of the images.
        code_hash: of the files that training imported; ``commit`` of the checkout.
        dirty: whether any of that code, or of a tracked file, was in no commit.
        title: the data set as the run called it.
        class_counts: training images of each class.
        group_sizes: number of classes that are many, medium and few.
        headline: the rule whose numbers represent the run.
        rules: results by selection rule: ``last``, and others where there was validation.
        oracle: best test epoch, where test was logged every epoch; never a result.
        notes: what the run had to say about its splits and its segments.
        former_fingerprints: those that earlier versions gave the same split; in no line if none.
        verified: the published data set whose lists the run read, checked line by line; empty where
            nothing says so.
        trained_as: the run whose training this one has; None, and then in no line, where it was
            trained itself.
        shared_epochs: how many epochs, from the first on, are those of ``trained_as``, after which
            this one was trained itself; None, and then in no line, where all are, or none.
        shared_seconds: spent in these epochs; likewise.
        cost: of training, all segments together; None in lines made before it was kept.
        seconds: spent in training epochs, all segments together, those of ``trained_as`` among
            them; so it is with the cost.
        hardware: processor, cores, device, precision, threads and processes of the last segment.
        versions: of Python and the packages that compute.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str
    method: str
    setting: str
    words: tuple[str, ...]
    fingerprint: str
    group: str
    split_fingerprint: str
    seed: int
    subset_seed: int
    code_hash: str
    commit: str | None
    dirty: bool
    title: str
    epochs: int
    model: str
    class_counts: tuple[int, ...]
    group_sizes: dict[str, int]
    headline: str
    rules: dict[str, RuleRecord]
    oracle: Oracle | None
    notes: tuple[str, ...]
    former_fingerprints: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    verified: str = ""
    trained_as: str | None = Field(default=None, exclude_if=lambda value: value is None)
    shared_epochs: int | None = Field(default=None, exclude_if=lambda value: value is None)
    shared_seconds: float | None = Field(default=None, exclude_if=lambda value: value is None)
    cost: Cost | None = None
    seconds: float
    hardware: dict[str, str | int | None]
    versions: dict[str, str | None]

    @property
    def own_seconds(self) -> float:
        """Seconds of the epochs that were trained for this run, and not for ``trained_as``."""
        if self.trained_as is None:
            return self.seconds
        return 0.0 if self.shared_seconds is None else self.seconds - self.shared_seconds


# A line without all of them is of another kind, not one of another version.
OWN_KEYS = {("table",), ("method",), ("setting",)}
HARDWARE = ("processor", "cores", "platform", "device", "precision", "threads", "processes")


def from_run_folder(
    path: Path, *, table: str, method: str, setting: str, words: Sequence[str]
) -> RunRecord:
    """Return the record of a finished run.

    Args:
        path: the run folder.
        table: name of the table that the run belongs to.
        method: its row.
        setting: its column.
        words: what ``train.py`` has to be given for this run.

    Raises:
        ConfigError: the folder holds no finished run, or one of its files is damaged.
    """
    folder = RunFolder(path)
    config = load_run_config(path)
    try:
        summary = Summary.model_validate(_object(folder.summary))
        environment = _object(folder.environment)
        segment = environment["segments"][-1]
        seconds = [row["time/epoch_seconds"] for row in folder.rows()]
        shared = environment.get("shared_epochs")
        return RunRecord(
            table=table,
            method=method,
            setting=setting,
            words=tuple(words),
            fingerprint=summary.fingerprint,
            group=summary.group,
            split_fingerprint=summary.split_fingerprint,
            former_fingerprints=summary.former_fingerprints,
            seed=config.seed,
            subset_seed=config.data.imbalance.seed,
            code_hash=summary.code_hash,
            commit=segment["commit"],
            dirty=any(one["dirty"] for one in environment["segments"]),
            title=summary.title,
            epochs=config.schedule.epochs,
            model=config.model.name,
            class_counts=summary.class_counts,
            group_sizes=summary.group_sizes,
            headline=summary.headline,
            rules={rule: _rule(result) for rule, result in summary.rules.items()},
            oracle=summary.oracle,
            notes=summary.notes,
            verified=summary.verified,
            trained_as=environment.get("trained_as"),
            shared_epochs=shared,
            shared_seconds=None if shared is None else sum(seconds[:shared]),
            cost=summary.cost,
            seconds=sum(seconds),
            hardware={key: segment[key] for key in HARDWARE},
            versions={"python": segment["python"], **segment["packages"]},
        )
    except (KeyError, IndexError, ValidationError) as error:
        raise ConfigError([f"{path}: not a run of this version; use train.py --fresh"]) from error


def training_seconds(records: Sequence[RunRecord]) -> float:
    """Return the seconds of all training of some runs; what several of them have counts once.

    What they have of a run that is not among them counts with the longest such part.
    """
    known = {record.fingerprint for record in records}
    elsewhere: dict[str, float] = {}
    for record in records:
        if (run := record.trained_as) is not None and run not in known:
            shared = record.seconds - record.own_seconds
            elsewhere[run] = max(shared, elsewhere.get(run, 0.0))
    return sum(record.own_seconds for record in records) + sum(elsewhere.values())


def read(path: Path) -> list[RunRecord]:
    """Return the records of a results file, of each fingerprint the latest; none without a file.

    A last line that was cut off is dropped: its run is taken from its folder again. A file that has
    not been replaced since it was last read here is not read again. Splits bear the names that
    :func:`of_today` gives them.

    Raises:
        ConfigError: another line is no record of this version, or the file cannot be read.
    """
    try:
        found = path.stat()
    except OSError:
        return of_today(_read_now(path))
    state = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    known = _READ.get(path)
    if known is None or known[0] != state:
        known = _READ[path] = (state, tuple(of_today(_read_now(path))))
    return list(known[1])


_READ: dict[Path, tuple[tuple[int, ...], tuple[RunRecord, ...]]] = {}


def of_today(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return records whose splits have one fingerprint each, where newer ones tell the former.

    Each setting for itself: one that reads the same files at another size had the same former name.
    """
    made = defaultdict[str, list[tuple[str, tuple[str, ...]]]](list)
    for record in records:
        made[record.setting].append((record.split_fingerprint, record.former_fingerprints))
    names = {setting: todays_names(splits) for setting, splits in made.items()}
    return [
        r.model_copy(update={"split_fingerprint": names[r.setting][r.split_fingerprint]})
        if r.split_fingerprint in names[r.setting]
        else r
        for r in records
    ]


def _read_now(path: Path) -> list[RunRecord]:
    latest: dict[str, RunRecord] = {}
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            record = RunRecord.model_validate_json(line)
        except ValidationError as error:
            if {e["loc"] for e in error.errors() if e["type"] == "missing"} >= OWN_KEYS:
                raise ConfigError(
                    [
                        f"{path}:{number}: not a results line but of a file of another kind; the "
                        "lines that reproduce.py makes are in experiments/results"
                    ]
                ) from error
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            reason = f"{where}: {first['msg']}" if where else first["msg"]
            advice = "remove it"
            if first["type"] in {"json_invalid", "model_type"}:  # damaged, or never one
                advice += " if others of the file are; experiments/results has files of them"
            raise ConfigError(
                [f"{path}:{number}: not a results line of this version ({reason}); {advice}"]
            ) from error
        latest.pop(record.fingerprint, None)
        latest[record.fingerprint] = record
    return list(latest.values())


def append(path: Path, record: RunRecord) -> None:
    """Add a line, or replace that of the same run, all or nothing.

    Raises:
        ConfigError: the file is damaged.
        WriteError: the disk is full, or the folder cannot be written.
    """

    def added(records: list[RunRecord]) -> list[RunRecord]:
        return [*(r for r in records if r.fingerprint != record.fingerprint), record]

    try:
        rewrite(path, added)
    except OSError as error:
        raise WriteError(
            f"{path}: {error.strerror}; its run is finished: mend this and run the same "
            "command to add the line"
        ) from error


def rewrite(path: Path, change: Callable[[list[RunRecord]], list[RunRecord]]) -> None:
    """Put ``change`` of the records of a file in their place, all or nothing.

    Processes that write to one folder wait for each other, so that no line is lost.

    Raises:
        ConfigError: the file is damaged.
        OSError: the disk is full, or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        # Not what is known of the file: another process may have added a line just now.
        records = change(_read_now(path))
        lines = [json.dumps(r.model_dump(mode="json"), allow_nan=False) for r in records]
        write_text(path, "".join(f"{line}\n" for line in lines))


def _rule(result: RuleResult) -> RuleRecord:
    recall = tuple(c.recall for c in sorted(result.classes, key=lambda c: c.label))
    return RuleRecord(epoch=result.epoch, val=result.val, test=result.test, recall=recall)


def _object(path: Path) -> Mapping[str, Any]:
    content = read_json(path)
    if content is None:
        raise ConfigError([f"{path}: is missing; the run is not finished"])
    return content


def _whole_lines(path: Path) -> list[bytes]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    return content[: content.rfind(b"\n") + 1].splitlines()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for writing: the file itself is replaced, and a lock on it would be lost."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
