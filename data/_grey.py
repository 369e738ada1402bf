"""How many grey levels are left of 16-bit greyscale files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from data._base import DEEPEST, DataError
from data._decode import is_deep_grey, largest_grey

_Fact = TypeVar("_Fact")

LOOKED_AT = 8  # files, evenly spaced
_ENOUGH_BITS = 15  # images may just be dark; with fewer, bits are unused


def grey_notes(paths: Sequence[Path], *, grey_bits: int) -> tuple[str, ...]:
    """Say how many of 256 grey levels are left where 16-bit files leave their upper bits empty.

    X-rays and microscopes often fill 12 of 16 bits, of which the upper 8 are 16 grey levels.

    Args:
        paths: Files of the training split, of which a few are looked at.
        grey_bits: Bits in use, as the config has them.

    Raises:
        DataError: If bits are given and no file has 16. Files that cannot be read are passed over:
            decoding names them.
    """
    if grey_bits < DEEPEST:
        if not any(_read(is_deep_grey, path) for path in paths):
            raise DataError(
                f"data.grey_bits={grey_bits}: has no effect, no training image is 16-bit "
                "greyscale; leave it out"
            )
        return ()
    sample = paths[:: max(1, -(-len(paths) // LOOKED_AT))]
    found = [value for path in sample if (value := _read(largest_grey, path)) is not None]
    if not found:
        return ()
    largest = max(found)
    bits = max(8, largest.bit_length())
    if bits >= _ENOUGH_BITS:
        return ()
    return (
        f"16-bit greyscale: {len(found)} training images have no value above {largest}, so that "
        f"{(largest >> 8) + 1} of 256 grey levels are left; data.grey_bits={bits} keeps more",
    )


def _read(fact: Callable[[Path], _Fact], path: Path) -> _Fact | None:
    """Return a fact of a file, None of one that cannot be read."""
    try:
        return fact(path)
    except DataError:
        return None
