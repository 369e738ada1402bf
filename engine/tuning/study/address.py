"""The URL of a study's database, with the password hidden whenever it is shown."""

from __future__ import annotations

import urllib.parse
from typing import Any

import sqlalchemy
from sqlalchemy.exc import ArgumentError

from engine.config.homes import expanded, has_home
from engine.config.mistakes import ConfigError


class Address:
    """A storage URL that can be shown: its password never is."""

    def __init__(self, url: str) -> None:
        """Parse.

        Raises:
            ConfigError: not a URL, of a database that studies cannot live in, or of a file in the
                home folder of nobody.
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
        if kind == "sqlite" and (file := parsed.database or "").startswith("~"):
            if not has_home(file):
                owner = file.partition("/")[0]
                raise ConfigError(
                    [f"storage={parsed}: {owner} has no home folder; write it in full"]
                )
            parsed = parsed.set(database=str(expanded(file)))
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
        """Return what the driver needs to wait, and to notice that the other end has vanished."""
        if self.kind == "sqlite":
            return {"timeout": 60}
        return {
            "connect_timeout": 10,
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        }

    def engine(self) -> sqlalchemy.Engine:
        """Return a connection pool of its own.

        Raises:
            ConfigError: the driver is not installed.
        """
        try:
            return sqlalchemy.create_engine(self.url, connect_args=self.connect_arguments())
        except ImportError as error:
            raise ConfigError([f"storage={self}: needs psycopg, see requirements.txt"]) from error

    def redacted(self, text: object) -> str:
        """Return ``text``, a driver's error for one, on one line and without the password."""
        shown = " ".join(str(text).split())
        password = self.url.password
        for secret in (password, urllib.parse.quote_plus(str(password))) if password else ():
            shown = shown.replace(str(secret), "***")
        return shown
