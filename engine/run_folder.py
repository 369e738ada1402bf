"""A run folder: one owner at a time, files that are whole or absent, and what made them."""

from __future__ import annotations

import ast
import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from engine.config.components import ROOT
from engine.config.load import ConfigError

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "wandb")
# What makes a checkout differ from its commit: anything but the results that runs add to it.
CODE_PATHS = (".", ":(exclude)experiments/results")


# A full or read-only disk, a quota, missing permission: for the user to mend, no fault of the code.
WRITE_FAILURES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
)


class WriteError(RuntimeError):
    """The run folder cannot be written any more; one line for the user."""


class BusyError(ConfigError):
    """Another process is writing the run folder."""


class RunFolder:
    """Paths and files of one run: ``<track.root>/<track.name>/<fingerprint>``.

    The folder holds config.yaml, environment.json, metrics.jsonl (one line an epoch, the truth),
    summary.json (only when finished), validation.json (when trained by a search, which never looks
    at test: all of a summary but test), checkpoints/, predictions/, figures/, wandb/ and lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.validation = path / "validation.json"
        self.checkpoints = path / "checkpoints"
        self.predictions = path / "predictions"
        self.figures = path / "figures"

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the folder's lock; the system lets go of it when the process ends, however it ends.

        Raises:
            BusyError: another process is writing this run.
            ConfigError: the folder cannot be made.
        """
        with contextlib.ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock: IO[str] = stack.enter_context((self.path / "lock").open("a+"))
            except OSError as error:
                raise ConfigError([f"{self.path}: cannot be written: {error.strerror}"]) from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise BusyError(
                    [f"{self.path}: process {lock.read().strip()} is writing this run; wait for it"]
                ) from None
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
                    f"{error.filename or self.path}: {error.strerror}; what was finished is whole, "
                    "and the same command goes on from there once this is mended"
                ) from error

    def is_owned(self) -> bool:
        """Whether a process, this one included, is writing the run."""
        try:
            with (self.path / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def set_aside(self) -> Path | None:
        """Rename an existing folder to ``<name>.old-1`` (2, 3 ...); returns where it went.

        Raises:
            BusyError: another process is writing this run.
        """
        if not self.path.exists():
            return None
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.old-{number}")).exists():
            number += 1
        with self.owned():
            self.path.rename(aside)
        return aside

    def rows(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a torn last line is dropped."""
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

    def read_json(self, path: Path) -> dict[str, Any] | None:
        """A JSON object of this folder, or None when the file is absent.

        Raises:
            ConfigError: the file is there but holds no JSON object.
        """
        try:
            content = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise ConfigError([f"{path}: not valid JSON; repair it or use --fresh"]) from error
        if not isinstance(content, dict):
            raise ConfigError([f"{path}: not a JSON object; repair it or use --fresh"])
        return content


_HELD: set[IO[str]] = set()  # the locks of this process


@functools.cache
def _let_go_in_children() -> None:
    """Close the locks in every process that is forked from now on.

    A loader's worker notices only after some seconds that its run was killed; until then it would
    hold the lock in its dead parent's name.
    """
    os.register_at_fork(after_in_child=lambda: [lock.close() for lock in _HELD])


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """As :func:`write_text`, for bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # on a full disk its space is needed
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all; NaN is refused, None means undefined."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def code_hash(data: str, loss: str) -> str:
    """12 hex digits over the .py files that a run with this data set and loss imports."""
    files = [ROOT / "train.py", ROOT / "assembly.py"]
    files += [*(ROOT / "engine").glob("*.py"), *(ROOT / "models").glob("*.py")]
    for package, name in (("data", data), ("losses", loss)):
        files += [*(ROOT / package).glob("_*.py"), *_with_siblings(ROOT / package / f"{name}.py")]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0")
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _with_siblings(file: Path) -> set[Path]:
    """A file and those of its folder that it imports, and they import."""
    found, new = set[Path](), {file}
    while new:
        found |= new
        modules = {
            node.module
            for path in new
            for node in ast.walk(ast.parse(path.read_bytes()))
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
        }
        new = {path for m in modules if (path := file.with_name(f"{m}.py")).exists()} - found
    return {path for path in found if not path.stem.startswith("_")}


def describe_segment(
    *,
    command: Sequence[str],
    device: str,
    precision: str,
    threads: int,
    code: str,
    processes: int = 1,
) -> dict[str, Any]:
    """What ran one uninterrupted stretch of a run, for environment.json."""
    return {
        "command": list(command),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", *CODE_PATHS)),
        "code_hash": code,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": device,
        "precision": precision,
        "threads": threads,
        "processes": processes,
    }


def _version(package: str) -> str | None:
    """Of an installed package; W&B may be missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Output of git in the checkout, or None where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
