"""Claims: one worker at a time counts the trials and asks for the next.

The system lets go of a claim when the process that holds it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from engine.tuning.study.address import Address


class Claim(Protocol):
    """The right to ask for the next trial: one worker at a time, and no longer than it lives."""

    def acquire(self) -> None:
        """Wait for it."""
        ...

    def is_held(self) -> bool:
        """Return whether it is still ours; a connection may have been lost."""
        ...

    def release(self) -> None:
        """Release the claim, so that the next worker can have it."""
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
        """Return whether the file is open: its lock goes with its process only."""
        return self._file is not None

    def release(self) -> None:
        """Release the claim; do nothing if it is not held."""
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
        """Return whether the connection that took the lock still answers."""
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


@contextlib.contextmanager
def held(claim: Claim) -> Iterator[None]:
    """Hold a claim inside the block."""
    claim.acquire()
    try:
        yield
    finally:
        claim.release()


def claim_on(address: Address, engine: sqlalchemy.Engine, name: str) -> Claim:
    """Return the claim of this name that all processes with this address share."""
    if address.kind == "postgresql":
        return PostgresClaim(engine, name)
    database = Path(address.url.database or "study.db")
    return FileClaim(database.with_name(f"{database.name}.claim"))
