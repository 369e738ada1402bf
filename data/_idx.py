"""The idx format of MNIST and its children (http://yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from data._base import DataError

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, *, num_dimensions: int) -> np.ndarray:
    """Read an idx file of unsigned bytes, unpacking .gz in place.

    Args:
        path: The file, plain or ending in .gz.
        num_dimensions: How many it must have: 3 for images, 1 for labels.

    Raises:
        DataError: Naming the file, if it is truncated, damaged or of another kind.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again") from error
    header = 4 * (1 + num_dimensions)
    expected = _UNSIGNED_BYTE << 8 | num_dimensions
    if len(raw) < header or struct.unpack(">I", raw[:4])[0] != expected:
        raise DataError(
            f"{path} is not an idx file of {num_dimensions} dimensions (its first four bytes must "
            f"be {expected:#010x}): fetch it again"
        )
    shape = struct.unpack(f">{num_dimensions}I", raw[4:header])
    if len(raw) - header != math.prod(shape):
        raise DataError(
            f"{path} promises {math.prod(shape)} bytes of data and has {len(raw) - header}: "
            "fetch it again"
        )
    return np.frombuffer(bytearray(raw), dtype=np.uint8, offset=header).reshape(shape)
