"""Who runs a trial, and whether that process is still alive."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

OWNER = "owner"  # user attribute of a trial


def this_process(trial_number: int) -> dict[str, Any]:
    """Return what a worker writes into the trial that it has asked for."""
    return {"trial": trial_number, "machine": _machine(), "process": _identity(os.getpid())}


def is_lost(trial: FrozenTrial) -> bool:
    """Return whether nobody runs this running trial any more, as far as this machine can tell.

    Only to be asked by the holder of the claim: a worker owns a trial before it lets go of the
    claim that it asked under, so one without an owner was left by a worker that died in between. A
    trial of another machine is left to its heartbeat.
    """
    owner = trial.user_attrs.get(OWNER)
    if owner is None or owner["trial"] != trial.number:  # a retried trial brings its first owner's
        return True
    if owner["machine"] != _machine():
        return False
    return owner["process"] != _identity(int(owner["process"].split("-")[0]))


def is_ours(trial: FrozenTrial) -> bool:
    """Return whether it is this process that runs the trial."""
    return trial.user_attrs.get(OWNER) == this_process(trial.number)


@functools.cache
def _machine() -> str:
    """Return one name for all processes that see each other: host, boot and PID namespace."""
    parts = [socket.gethostname()]
    for path in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        if path.is_symlink():
            parts.append(str(path.readlink()))
        elif path.exists():
            parts.append(path.read_text(encoding="utf-8").strip())
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:12]


def _identity(pid: int) -> str | None:
    """Return ``pid-start time``, as ids are used again; None where there is no such process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    stat = Path(f"/proc/{pid}/stat")
    try:
        # After the name, which may hold anything: the state is field 3, the start time field 22.
        fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else f"{pid}-"
    return None if fields[0] in "ZX" else f"{pid}-{fields[19]}"
