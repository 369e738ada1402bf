"""Errors of other libraries as one line of a message."""

from __future__ import annotations

import traceback
from pathlib import Path

LONGEST = 200


def one_line(error: BaseException) -> str:
    """Return an error's message as one line of bounded length.

    Of an assertion without a message it is the line of the source that makes it.
    """
    text = " ".join(str(error).split()) or _place(error)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _place(error: BaseException) -> str:
    """Return the statement that raised an error, torch's own frames left out."""
    kind = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    asking = [frame for frame in frames if "torch" not in Path(frame.filename).parts]
    if not asking or not asking[-1].line:
        return f"{kind} without a reason"
    return f"{kind} in {Path(asking[-1].filename).name}: {' '.join(asking[-1].line.split())}"
