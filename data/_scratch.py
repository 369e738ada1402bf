"""Cache folders that appear whole or not at all, however many processes write them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from data._base import DataError


@contextlib.contextmanager
def written_whole(entry: Path, *, needed: int, is_whole: Callable[[], bool]) -> Iterator[Path]:
    """Yield a scratch folder that becomes ``entry`` in one step once it is filled.

    An entry that another process has written meanwhile is kept if it ``is_whole``: that process
    may have it open already. A damaged one is replaced.
    """
    scratch = entry.with_name(f".{entry.name}.{os.getpid()}.{secrets.token_hex(4)}")
    lock = None
    try:
        lock = _locked_folder(scratch)
        for other in entry.parent.glob(".*"):
            _remove_if_left(other)
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
            os.close(lock)


def _locked_folder(folder: Path) -> int:
    """Make a folder, lock it and return the handle; closing it, or being killed, unlocks it.

    Before it is locked, another process may take the folder for an abandoned one and remove it;
    then it is made again.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if folder.is_dir():
                return handle
            os.close(handle)


def _remove_if_left(folder: Path) -> None:
    """Remove a scratch folder that nobody has locked: a killed process left it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # another process has removed it
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
