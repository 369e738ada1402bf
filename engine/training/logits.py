"""The logits of a whole split: in memory where they are few, else in a file."""

from __future__ import annotations

import contextlib
import math
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

IN_MEMORY = 2**26
"""Bytes of logits that are kept in memory; more are written to a file as they come."""

BLOCK_ENTRIES = 2**19
"""Numbers of a block of rows: 4 MB in double precision."""


def row_blocks(num_rows: int, num_columns: int) -> Iterator[slice]:
    """Yield slices of rows that cover (N, C) in order, in blocks of bounded size."""
    step = max(1, BLOCK_ENTRIES // num_columns)
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def rows_of(logits: np.ndarray | LogitFile, rows: slice) -> np.ndarray:
    """Return consecutive rows in double precision; of a memory map without holding its pages."""
    if isinstance(logits, np.memmap) and logits.filename is not None:
        width = logits.shape[1]
        start, stop, _ = rows.indices(len(logits))
        offset = logits.offset + logits.itemsize * start * width
        flat = np.fromfile(
            logits.filename, dtype=logits.dtype, count=(stop - start) * width, offset=offset
        )
        return flat.reshape(-1, width).astype(np.float64)
    return logits[rows].astype(np.float64)


class LogitFile:
    """float32 (N, C) in an ``.npy`` file: rows are appended, then read in slices.

    A memory map would hold every page that was touched; here a slice is what is in memory. What
    is open is read, so that the file may be renamed or replaced meanwhile. Unless :meth:`keep_as`
    gives it its name, the file goes with the object.

    Args:
        path: where it is written; a file that is there is replaced.
        shape: (N, C).
    """

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # an older one may still be read elsewhere
        self.path, self.shape = path, shape
        self._file = path.open("w+b")
        self._finalizer = weakref.finalize(self, _remove, path, self._file)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()

    @classmethod
    def is_wanted(cls, shape: tuple[int, int]) -> bool:
        """Return whether so many logits belong in a file."""
        return 4 * math.prod(shape) > IN_MEMORY

    def __len__(self) -> int:
        return self.shape[0]

    def append(self, rows: np.ndarray) -> None:
        """Write the next rows (B, C)."""
        self._file.write(rows.astype("<f4").tobytes())

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return consecutive rows, a copy."""
        start, stop, _ = rows.indices(len(self))
        width = self.shape[1]
        self._file.seek(self._start + 4 * start * width)
        found = np.fromfile(self._file, dtype="<f4", count=max(0, stop - start) * width)
        return found.reshape(-1, width)

    def keep_as(self, path: Path) -> None:
        """Give the file its name, once all of it is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.path.replace(path)
        self.path = path

    def close(self) -> None:
        """Close the file, and remove it where it has not been kept."""
        self._finalizer()


def _remove(path: Path, file: BinaryIO) -> None:
    with contextlib.suppress(FileNotFoundError):
        # By now another one may have the name, of a later pass or of another process.
        if os.path.samestat(path.stat(), os.fstat(file.fileno())):
            path.unlink()
    file.close()
