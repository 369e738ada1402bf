"""A run folder: its paths, its one owner at a time, its lines of metrics."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from engine.config import components, load
from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.training.files import WRITE_FAILURES, WriteError, write_text

LEFT = "epoch_*.pt"  # checkpoints that are left for runs of a table which begin there


class BusyError(ConfigError):
    """Another process is writing the run folder."""


class RunFolder:
    """Paths and files of one run: ``<track.root>/<name>/<fingerprint>``.

    The folder holds config.yaml, environment.json, parameters.json (what is trained, in which
    groups of the optimizer), metrics.jsonl (one line an epoch, the truth),
    summary.json (only when finished), validation.json (when trained by a search, which never looks
    at test: all of a summary but test), checkpoints/, predictions/, figures/, wandb/ and lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.parameters = path / "parameters.json"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.validation = path / "validation.json"
        self.checkpoints = path / "checkpoints"
        self.predictions = path / "predictions"
        self.figures = path / "figures"

    @classmethod
    def of(cls, config: Config, *, fingerprint: str | None = None) -> RunFolder:
        """Return the folder of a run: ``<track.root>/<name>/<fingerprint>``.

        The name is ``track.name``, else that of the data folder, else ``data.name``. A run that is
        already below ``data.name``, where all runs once were, stays there.

        Args:
            config: of the run.
            fingerprint: of the run, where the caller has it.
        """
        root, own = Path(config.track.root).expanduser(), fingerprint or load.fingerprint(config)
        path = root / (config.track.name or data_name(config)) / own
        former = root / config.data.name / own
        is_former = config.track.name is None and former.exists() and not path.exists()
        return cls(former if is_former else path)

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the folder's lock; the system lets go of it when the process ends, however it ends.

        Raises:
            BusyError: another process is writing this run.
            ConfigError: the folder cannot be made.
        """
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(self._locked())
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            _let_go_in_children()
            _HELD.add(lock)
            stack.callback(_HELD.discard, lock)
            try:
                yield
            except OSError as error:
                if error.errno not in WRITE_FAILURES:
                    raise
                raise WriteError(
                    f"{error.filename or self.path}: {error.strerror}; what was finished is whole; "
                    "mend this and run the same command to resume"
                ) from error

    def _locked(self) -> IO[str]:
        """Return the folder's lock file, locked.

        Between opening and locking it another process may have set the folder aside, and the file
        with it; then the folder of that name is another one.
        """
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock = self._opened()
            except OSError as error:
                raise ConfigError([f"{self.path}: cannot be written: {error.strerror}"]) from error
            if lock is None:
                continue
            if not _takes(lock):
                with lock:
                    lock.seek(0)
                    owner = lock.read().strip()
                raise BusyError([f"{self.path}: process {owner} is writing this run; wait for it"])
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), (self.path / "lock").stat()):
                    return lock
            lock.close()

    def _opened(self) -> IO[str] | None:
        """Return the lock file of a folder that was there; None where it has been set aside."""
        try:
            return (self.path / "lock").open("a+")
        except FileNotFoundError:
            return None

    def has_begun(self) -> bool:
        """Return whether there is a checkpoint to go on from, or the result."""
        there = set(self.checkpoints.glob("*.pt")) - set(self.checkpoints.glob(LEFT))
        return self.summary.exists() or bool(there)

    def is_owned(self) -> bool:
        """Return whether a process, this one included, is writing the run."""
        try:
            with (self.path / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def set_aside(self) -> Path | None:
        """Rename an existing folder to ``<name>.old-1`` (2, 3 ...); return where it went.

        Raises:
            BusyError: another process is writing this run.
        """
        if not self.path.exists():
            return None
        with self.owned():
            if [file.name for file in self.path.iterdir()] == ["lock"]:
                return None  # another process has set it aside just now
            number = 1
            while (aside := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
                number += 1
            self.path.rename(aside)
        return aside

    def rows(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl, without a torn last one."""
        rows: list[dict[str, Any]] = []
        for line in self._metrics_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def append_row(self, row: Mapping[str, Any]) -> None:
        """Add one epoch's line and push it to the disk."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def cut_rows(self, epochs: int) -> list[dict[str, Any]]:
        """Keep the first ``epochs`` lines only, so that the file agrees with a checkpoint.

        Raises:
            ConfigError: one of those lines is missing. No crash takes one: each is on the disk
                before the checkpoint of its epoch.
        """
        rows = self.rows()[:epochs]
        if [row.get("epoch") for row in rows] != list(range(1, epochs + 1)):
            raise ConfigError(
                [
                    f"{self.metrics}: does not hold the {epochs} epochs that the checkpoint has; "
                    "put the file back, or use --fresh"
                ]
            )
        text = "".join(json.dumps(row) + "\n" for row in rows)
        if self._metrics_text() != text:
            write_text(self.metrics, text)
        return rows

    def _metrics_text(self) -> str:
        # A crash may leave any bytes at the end.
        return self.metrics.read_text("utf-8", "replace") if self.metrics.exists() else ""


def epoch_file(checkpoints: Path, epoch: int) -> Path:
    """Return the checkpoint after an epoch (from 1) that is left for runs which begin there."""
    return checkpoints / LEFT.replace("*", str(epoch))


def data_name(config: Config) -> str:
    """Return what the runs on a data set are called by: one of images of one's own, its folder.

    The folder is that of the key which the data set names as ``files_runs_under``.
    """
    facts = components.read("data", config.data.name).class_facts
    key = facts.get("files_runs_under")
    folder = getattr(config.data, key) if key else None
    if not folder:
        return config.data.name
    name = Path(folder).expanduser().absolute().name
    return re.sub(r"[^\w.-]+", "_", name).lstrip("._-") or config.data.name


def _takes(lock: IO[str]) -> bool:
    """Lock a file unless another process holds it; one that only looks does so for a moment."""
    for pause in (0.001, 0.01, 0.1, 0.0):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(pause)
    return False


_HELD: set[IO[str]] = set()  # the locks of this process


@functools.cache
def _let_go_in_children() -> None:
    """Close the locks in every process that is forked from now on.

    A loader's worker notices only after some seconds that its run was killed; until then it would
    hold the lock in its dead parent's name.
    """
    os.register_at_fork(after_in_child=lambda: [lock.close() for lock in _HELD])
