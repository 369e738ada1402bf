"""Where a study lives: SQLite in its folder, or PostgreSQL for many machines.

A storage that is gone for a while stops nothing: every call is tried again. A claim keeps workers
from asking for a trial at the same moment; the system lets go of it when its process dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import threading
import time
import urllib.parse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import BaseHeartbeat
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from engine.config.mistakes import ConfigError
from engine.training.files import WriteError

PATIENCE = 600.0  # seconds for which calls to a storage that is gone are tried again
HEARTBEAT = 10  # seconds between signs of life of a trial
GRACE = 120  # seconds without one after which a trial on another machine counts as dead


class StorageLostError(WriteError):
    """The storage has been gone for longer than anybody waits."""


class Address:
    """A storage URL that can be shown: its password never is."""

    def __init__(self, url: str) -> None:
        """Parse.

        Raises:
            ConfigError: not a URL, or of a database that studies cannot live in.
        """
        try:
            parsed = sqlalchemy.make_url(url)
        except ArgumentError as error:
            raise ConfigError(
                ["storage: not a URL; use sqlite:///file.db or postgresql://user@host/database"]
            ) from error
        kind = parsed.get_backend_name()
        if kind not in ("sqlite", "postgresql"):
            raise ConfigError(
                [f"storage={parsed.render_as_string()}: expected sqlite:/// or postgresql://"]
            )
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.url, self.kind = parsed, kind

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    __repr__ = __str__

    @property
    def secret(self) -> str:
        """The URL as a driver needs it."""
        return self.url.render_as_string(hide_password=False)

    def connect_arguments(self) -> dict[str, Any]:
        """For the driver: how long to wait, and how to notice that the other end has vanished."""
        if self.kind == "sqlite":
            return {"timeout": 60}
        return {
            "connect_timeout": 10,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        }

    def engine(self) -> sqlalchemy.Engine:
        """A connection pool of its own.

        Raises:
            ConfigError: the driver is not installed.
        """
        try:
            return sqlalchemy.create_engine(self.url, connect_args=self.connect_arguments())
        except ImportError as error:
            raise ConfigError([f"storage={self}: needs psycopg, see requirements.txt"]) from error

    def redacted(self, text: object) -> str:
        """``text``, an error of a driver for one, without the password."""
        shown = " ".join(str(text).split())
        password = self.url.password
        for secret in (password, urllib.parse.quote_plus(str(password))) if password else ():
            shown = shown.replace(str(secret), "***")
        return shown


# --- patience ------------------------------------------------------------------------------------


class PatientStorage(RDBStorage):
    """Optuna's database storage, whose calls are tried again while the database is gone.

    Args:
        address: of the database.
        say: called with a line when calls begin to fail, and when they work again.
        heartbeat: seconds between signs of life of a running trial.
        grace: seconds without one after which it counts as dead.
        patience: seconds after which a call gives up.
    """

    def __init__(
        self,
        address: Address,
        *,
        say: Callable[[str], None],
        heartbeat: int = HEARTBEAT,
        grace: int = GRACE,
        patience: float = PATIENCE,
    ) -> None:
        self.address, self.say, self.patience = address, say, patience
        self._calls = threading.local()
        with warnings.catch_warnings():
            # Heartbeats have been "experimental" since Optuna 2.9.
            warnings.simplefilter("ignore", ExperimentalWarning)
            self.requeue = RetryHeartbeatStaleTrialCallback()
            super().__init__(
                address.secret,
                engine_kwargs={"pool_pre_ping": True, "connect_args": address.connect_arguments()},
                heartbeat_interval=heartbeat,
                grace_period=grace,
                heartbeat_stale_trial_callback=self.requeue,
            )

    def close(self) -> None:
        """Give the connections back."""
        self.remove_session()
        self.engine.dispose()

    def patiently(self, action: Callable[[], None]) -> None:
        """Do something else with the database, as patiently as all calls are."""
        action()


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: PatientStorage, *arguments: Any, **options: Any) -> Any:
        if getattr(self._calls, "is_inside", False):  # the outermost call is the one to repeat
            return method(self, *arguments, **options)
        self._calls.is_inside, began, failures = True, time.monotonic(), 0
        try:
            while True:
                try:
                    found = method(self, *arguments, **options)
                except (StorageInternalError, SQLAlchemyError) as error:
                    failures += 1
                    reason = self.address.redacted(error.__cause__ or error)
                    if time.monotonic() - began > self.patience:
                        lost = f"storage={self.address}: gone for {self.patience:.0f} s: {reason}"
                        raise StorageLostError(lost) from None
                    if failures == 1:
                        self.say(f"storage={self.address}: {reason[:200]}; trying again")
                    time.sleep(min(0.1 * 2**failures, 2.0))
                else:
                    if failures:
                        self.say(f"storage={self.address}: is back")
                    return found
        finally:
            self._calls.is_inside = False

    return call


# The last ones are what Optuna's cache in front of this class calls.
for _name in (
    *sorted(BaseStorage.__abstractmethods__ | BaseHeartbeat.__abstractmethods__),
    "_create_new_trial",
    "_get_trials",
    "_set_trial_param",
    "_get_best_trial_id",
    "get_trial_id_from_study_id_trial_number",
    "patiently",
):
    setattr(PatientStorage, _name, _patient(getattr(PatientStorage, _name)))


# --- claims --------------------------------------------------------------------------------------


class Claim(Protocol):
    """The right to ask for the next trial: one worker at a time, and no longer than it lives."""

    def acquire(self) -> None:
        """Wait for it."""
        ...

    def is_held(self) -> bool:
        """Whether it is still ours; a connection may have been lost."""
        ...

    def release(self) -> None:
        """Let the next one ask."""
        ...


class FileClaim:
    """A lock on a file, for workers that share a file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Wait for the lock."""
        self.release()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def is_held(self) -> bool:
        """A file lock goes with its process only."""
        return self._file is not None

    def release(self) -> None:
        """Let go; nothing where nothing is held."""
        if self._file is not None:
            self._file.close()
            self._file = None


class PostgresClaim:
    """An advisory lock of the database, which goes with its connection.

    Args:
        engine: of the database.
        name: of what is claimed; the same in all processes.
    """

    def __init__(self, engine: sqlalchemy.Engine, name: str) -> None:
        self.engine = engine
        digest = hashlib.sha256(f"tailfocus/{name}".encode()).digest()
        self._key = int.from_bytes(digest[:8], "big", signed=True)
        self._connection: sqlalchemy.Connection | None = None

    def acquire(self) -> None:
        """Wait for the lock."""
        self.release()
        self._connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        lock = sqlalchemy.text("SELECT pg_advisory_lock(:key)")
        self._connection.execute(lock, {"key": self._key})

    def is_held(self) -> bool:
        """Ask the database on the connection that took the lock."""
        try:
            if self._connection is not None:
                self._connection.execute(sqlalchemy.text("SELECT 1"))
        except SQLAlchemyError:
            self.release()
        return self._connection is not None

    def release(self) -> None:
        """Close the connection for good: pooled, it would keep the lock."""
        if self._connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                self._connection.invalidate()
                self._connection.close()
            self._connection = None


class PatientClaim:
    """A claim that waits for a database that is gone."""

    def __init__(self, claim: Claim, storage: PatientStorage) -> None:
        self.claim, self.storage = claim, storage
        self.is_held, self.release = claim.is_held, claim.release

    def acquire(self) -> None:
        """Wait for the claim, and for the database."""
        self.storage.patiently(self.claim.acquire)


def claim_of(storage: PatientStorage, *, study: str) -> Claim:
    """The claim that all workers of a study share."""
    return PatientClaim(_claim(storage.address, storage.engine, study), storage)


def open_storage(
    address: Address, *, say: Callable[[str], None], opening: float = 0.0, **options: Any
) -> PatientStorage:
    """Connect, and make the tables where they are not there yet.

    Args:
        address: of the database.
        say: see :class:`PatientStorage`.
        opening: seconds for which to try again where it cannot be reached.
        options: of :class:`PatientStorage`.

    Raises:
        ConfigError: there is no such database, or it does not let us in.
    """
    began = time.monotonic()
    while True:
        engine = address.engine()
        claim = _claim(address, engine, "tables")
        try:
            # Two processes that make the tables at once would get in each other's way.
            claim.acquire()
            return PatientStorage(address, say=say, **options)
        except (SQLAlchemyError, StorageInternalError, OSError) as error:
            if time.monotonic() - began >= opening:
                reason = address.redacted(getattr(error, "orig", None) or error)
                # From None: the driver's own text may hold what was just redacted.
                raise ConfigError([f"storage={address}: cannot be used: {reason}"]) from None
            time.sleep(1.0)
        finally:
            claim.release()
            engine.dispose()


def _claim(address: Address, engine: sqlalchemy.Engine, name: str) -> Claim:
    if address.kind == "postgresql":
        return PostgresClaim(engine, name)
    database = Path(address.url.database or "study.db")
    return FileClaim(database.with_name(f"{database.name}.claim"))
