"""Files that are whole or absent, and what keeps them from being written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config.mistakes import ConfigError

if TYPE_CHECKING:
    import numpy as np

# A full or read-only disk, a quota, missing permission: for the user to mend, no fault of the code.
WRITE_FAILURES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
)


class WriteError(RuntimeError):
    """A file or the run folder cannot be written; one line for the user."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Write a file that was asked for in the block.

    Raises:
        WriteError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Do what :func:`write_text` does, for bytes."""
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


@contextlib.contextmanager
def array_file(
    path: Path, *, shape: tuple[int, ...], dtype: type[np.generic]
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield what appends rows to a ``.npy`` file, which is whole or absent after the block.

    The array may be larger than the memory; ``np.load(path, mmap_mode="r")`` reads it so, too.

    Args:
        path: of the file.
        shape: of the whole array.
        dtype: of its numbers.
    """
    import numpy as np
    from numpy.lib.format import dtype_to_descr, write_array_header_2_0

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    kind = np.dtype(dtype)
    try:
        with temporary.open("wb") as file:
            header = {"descr": dtype_to_descr(kind), "fortran_order": False, "shape": shape}
            write_array_header_2_0(file, header)

            def append(rows: np.ndarray) -> None:
                file.write(np.ascontiguousarray(rows, dtype=kind).data)

            yield append
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all; NaN is refused, None means undefined."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object of a file, or None when the file is absent.

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
