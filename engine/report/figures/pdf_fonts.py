"""Fonts in a PDF without what only laying out text needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

LAYOUT_TABLES = ("GDEF", "GPOS", "GSUB", "kern")


@contextlib.contextmanager
def without_layout_tables() -> Iterator[None]:
    """Leave these tables out of every font that is cut for a PDF inside the block.

    A PDF says where each glyph stands, and no reader looks at them; they take half of the time that
    it takes to cut a font, and Matplotlib has no setting to leave them out.
    """
    from fontTools.subset import Options

    # Where all options start from, in every release so far; without it fonts stay whole.
    usual = getattr(Options, "_drop_tables_default", None)
    if usual is None:
        yield
        return
    Options._drop_tables_default = [*usual, *LAYOUT_TABLES]
    try:
        yield
    finally:
        Options._drop_tables_default = usual
