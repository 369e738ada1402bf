"""The command line of the converter."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

USAGE = """\
Give the tensors of a file that other code wrote the names of a model of timm, where both have the
same shapes in the same order; counters of batches are passed over. model.pretrained=OUT then takes
them. Equal shapes are no proof: let a run with the weights predict images that you know.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Convert one file and return 0, 1 where it cannot be written, or 2 for a mistake."""
    parser = argparse.ArgumentParser(prog="python -m models.weights", description=USAGE)
    parser.add_argument("file", type=Path, help="weights: .pth, .th, .pt or .safetensors")
    parser.add_argument("model", help="a name of timm, as in model=NAME")
    parser.add_argument("out", type=Path, help="where to write, as .safetensors")
    parser.add_argument("--list", action="store_true", help="print both names of every tensor")
    given = parser.parse_args(argv)
    if (mistake := _mistake(given.file, given.out)) is not None:
        print(mistake, file=sys.stderr)
        return 2

    from models._backbone import LOADING_ERRORS, check_name  # seconds of imports
    from models._wording import one_line

    try:
        check_name(given.model)
        state = _converted(given.file, given.model, is_listed=given.list)
    except LOADING_ERRORS as error:
        print(f"{given.file}: {one_line(error)}", file=sys.stderr)
        return 2
    try:
        _write(state, given.out)
    except OSError as error:
        print(f"{given.out}: cannot be written: {error.strerror or error}", file=sys.stderr)
        return 1
    print(f"{given.out}: {len(state)} tensors, under the names of {given.model}")
    return 0


def _mistake(file: Path, out: Path) -> str | None:
    if not file.is_file():
        return f"{file}: is not a file"
    if out.suffix != ".safetensors":
        return f"{out}: expected a name that ends in .safetensors"
    if not out.absolute().parent.is_dir():
        return f"{out}: expected a file in a folder that is there"
    return f"{out}: exists; name another file" if out.exists() else None


def _converted(file: Path, model: str, *, is_listed: bool) -> dict[str, Tensor]:
    """Return the tensors of a file under the names of a model."""
    from models._weights_file import read_state

    from ._order import pairs_by_order

    state = read_state(file)
    pairs = pairs_by_order(state, model)
    if is_listed:
        width = max(len(pair.theirs) for pair in pairs)
        print(*(f"{pair.theirs:<{width}}  {pair.ours}" for pair in pairs), sep="\n")
    return {pair.ours: state[pair.theirs].contiguous() for pair in pairs}


def _write(state: dict[str, Tensor], out: Path) -> None:
    """Write the file, all or nothing."""
    from safetensors.torch import save

    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        unfinished.write_bytes(save(state))
        unfinished.replace(out)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    sys.exit(main())
