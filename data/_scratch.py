"""Cache folders that appear whole or not at all, however many processes write them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from data._base import DataError

_ABANDONED = 86_400  # seconds without a change after which nobody on another machine is at work
_LOCK = ".lock"


@contextlib.contextmanager
def written_whole(entry: Path, *, needed: int, is_whole: Callable[[], bool]) -> Iterator[Path]:
    """Yield a scratch folder that becomes ``entry`` in one step once it is filled.

    An entry that another process has written meanwhile is kept if it ``is_whole``: that process
    may have it open already. A damaged one is replaced.
    """
    own = f"{os.getpid()}.{secrets.token_hex(4)}{_host()}"
    scratch = entry.with_name(f".{entry.name}.{own}")
    lock = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(_lock_of(scratch))
        scratch.mkdir()
        others = {other.name.removesuffix(_LOCK) for other in entry.parent.glob(".*")}
        for name in others - {scratch.name}:
            _remove_if_left(entry.with_name(name))
        free = shutil.disk_usage(scratch).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
        yield scratch
        _sync_folder(scratch)
        try:
            scratch.rename(entry)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            if not is_whole():
                shutil.rmtree(entry)
                scratch.rename(entry)
        _sync_folder(entry.parent)
    except OSError as error:
        raise DataError(
            f"the image cache {entry.parent} cannot be written ({error.strerror}): make room, set "
            "DATA_ROOT to another folder, or set data.cache_gb=0 to read images from their files"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if lock is not None:
            with contextlib.suppress(OSError):
                _lock_of(scratch).unlink()
            os.close(lock)


def _host() -> str:
    """Return the end of the names of scratch folders of this machine."""
    return f"@{socket.gethostname()}"


def _lock_of(scratch: Path) -> Path:
    return scratch.with_name(f"{scratch.name}{_LOCK}")


def _locked(file: Path) -> int:
    """Make a file, lock it and return the handle; closing it, or being killed, unlocks it.

    It is open for writing, as NFS asks for; a lock of a folder would be one machine's alone there.
    Where a file system knows no locks the file is just made. Before it is locked, another process
    may take it for an abandoned one and remove it; then it is made again.
    """
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), file.stat()):
                return handle
        os.close(handle)


def _remove_if_left(scratch: Path) -> None:
    """Remove a scratch folder that a killed process left: nobody has its lock.

    That of another machine, whose locks may not be seen here, and one without a lock are left
    alone until a day after their last change.
    """
    is_old = time.time() - _last_change(scratch) > _ABANDONED
    if not (is_old or scratch.name.endswith(_host())):
        return
    lock = _lock_of(scratch)
    handle = None
    try:
        handle = os.open(lock, os.O_RDWR)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_free = True
    except BlockingIOError:
        is_free = False
    except OSError:
        is_free = is_old
    if is_free:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            lock.unlink()
    if handle is not None:
        os.close(handle)


def _last_change(scratch: Path) -> float:
    """Return when a scratch folder, a file in it or its lock changed last; 0 if there is none."""
    times = [0.0]
    with contextlib.suppress(OSError):
        times.append(_lock_of(scratch).stat().st_mtime)
    with contextlib.suppress(OSError):
        times += [path.stat().st_mtime for path in (scratch, *scratch.iterdir())]
    return max(times)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
