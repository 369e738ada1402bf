"""A table from results lines: means over seeds, paired differences, published numbers beside.

``python -m engine.tables experiments/papers/digits_lt.yaml``; ``--help`` says the rest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from engine.config.mistakes import ConfigError
from engine.tables.options import USAGE, parse


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    try:
        given = parse(argv)
        if given.help:
            print(USAGE, end="")
            return 0
        _do(given)
        return 0
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2


def _do(given: argparse.Namespace) -> None:
    # Here and not above: pandas, NumPy and rich, which neither --help nor a typo needs.
    from engine.tables import commands, formats, readme
    from engine.tables.per_class import per_class_sheet
    from engine.tables.table import blocks_of, read_table, sheets_of, show, style_of, title_of

    if given.readme:
        changed = readme.write()
        print("rewritten: " + ", ".join(changed) if changed else "up to date")
        return
    table = read_table(given.source)
    if given.command:
        print(*commands.commands(table.records, given.command), sep="\n")
        return
    style = style_of(table, columns=given.columns, is_percent=given.percent, is_best=given.best)
    metrics = style.columns if given.metric is None else (given.metric,)
    blocks = blocks_of(table, rule=given.rule, baseline=given.baseline, columns=metrics)
    if given.figure is not None:
        from engine.tables import dot_plot

        dot_plot.save(blocks, given.figure, title=title_of(table), style=style)
        print(f"{given.figure}: written")
    elif given.format == "csv":
        print(formats.csv(blocks, table.references, style=style), end="")
    else:
        if given.per_class:
            sheets = [per_class_sheet(block, style=style) for block in blocks]
        else:
            sheets = sheets_of(blocks, table.references, metric=given.metric, style=style)
        if given.format == "terminal":
            show(sheets)
        else:
            written = formats.markdown if given.format == "markdown" else formats.latex
            print(written(sheets), end="")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
