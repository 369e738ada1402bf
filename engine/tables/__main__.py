"""A table from results lines: means over seeds, paired differences, published numbers beside.

``python -m engine.tables experiments/papers/digits_lt.yaml``; ``--help`` says the rest.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before all other imports, which take seconds and the environment
    from engine.config.launch import launch

    sys.exit(launch("engine.tables.__main__"))

import argparse
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
    from engine.tables import commands, costs, formats, readme
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
    style = style_of(
        table,
        columns=given.columns,
        is_percent=given.percent,
        is_best=given.best,
        has_costs=given.cost,
    )
    metrics = style.columns if given.metric is None else (given.metric,)
    blocks = blocks_of(table, rule=given.rule, baseline=given.baseline, columns=metrics)
    if given.figure is not None:
        from engine.tables import cost_figure, dot_plot

        if given.against is None:
            drawn = dot_plot.draw(blocks, title=title_of(table), style=style)
        else:
            drawn = cost_figure.draw(
                blocks,
                measure=costs.checked(given.against),
                metric=metrics[0],
                title=title_of(table),
                style=style,
            )
        dot_plot.save(drawn, given.figure)
        print(f"{given.figure}: written")
    elif given.format == "csv":
        print(formats.csv(blocks, table.references, style=style), end="")
    else:
        if given.variance:
            from engine.tables.variance import variance_sheet

            axes = table.description.axes if table.description else {}
            named = {str(key): value for key, value in axes.items()}
            sheets = [variance_sheet(blocks, metric=metrics[0], axes=named)]
        elif given.per_class:
            sheets = [per_class_sheet(block, style=style) for block in blocks]
        else:
            sheets = sheets_of(blocks, table.references, metric=given.metric, style=style)
        if given.format == "terminal":
            show(sheets)
        else:
            written = formats.markdown if given.format == "markdown" else formats.latex
            print(written(sheets), end="")
