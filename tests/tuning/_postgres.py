"""A real PostgreSQL in a temporary folder, run by an ordinary user, stopped at the end."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

PASSWORD = "s3cret/p@ss"  # with characters that a URL must quote
QUOTED = "s3cret%2Fp%40ss"


class Postgres:
    """One server; ``url`` has the password in it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.url = f"postgresql://tester:{QUOTED}@127.0.0.1:{port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        self.run("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self, how: str = "immediate") -> None:
        self.run("pg_ctl", "-w", "-m", how, "stop")

    def run(self, program: str, *words: str) -> None:
        command = [str(binary(program)), "-D", str(self.folder / "data"), *words]
        done = subprocess.run(
            command,
            user=owner(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def owner() -> str | None:
    """PostgreSQL refuses to run as root; Debian's package brings a user of its own."""
    if os.geteuid() != 0:
        return None
    return "postgres" if any(u.pw_name == "postgres" for u in pwd.getpwall()) else "nobody"


def binary(name: str) -> Path:
    """A program of the server, which Debian keeps out of the PATH."""
    if found := shutil.which(name):
        return Path(found)
    return max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Make a server that asks for a password, and start it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, socket.socket() as probe:
        folder = Path(name)
        probe.bind(("127.0.0.1", 0))
        server = Postgres(folder, probe.getsockname()[1])
        probe.close()
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if (user := owner()) is not None:
            for path in (folder, secret):
                shutil.chown(path, user)
        server.run("initdb", "-U", "tester", "-A", "scram-sha-256", "--pwfile", str(secret), "-N")
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(AssertionError):  # a test may have left it stopped
                server.stop()
