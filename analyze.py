"""Analyze finished runs from what they stored: tau, calibration, priors, prediction sets, mistakes.

``python analyze.py runs/digits/0123456789ab``; with a table of ``reproduce.py`` all of its runs,
with ``--diff`` why two runs differ. Heavy imports wait until there is something to analyze.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before all other imports, which take seconds and the environment
    from engine.config.launch import launch

    sys.exit(launch("analyze"))

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.analysis.command_line import USAGE, Arguments, parse
from engine.config.mistakes import ConfigError


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    from engine.training.files import WriteError

    try:
        given = parse(argv)
        if given.help:
            print(USAGE, end="")
            return 0
        if given.diff:
            return _show_differences(given)
        return _analyze_table(given) if given.is_table else _analyze_runs(given)
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2
    except WriteError as error:
        print(error, file=sys.stderr)
        return 1


def _analyze_runs(given: Arguments) -> int:
    """Analyze runs one by one, then compare those that share their test images."""
    from engine.analysis.comparison_screen import ComparisonScreen
    from engine.analysis.conformal import ALPHA
    from engine.analysis.figures import draw
    from engine.analysis.pairs import compare, outcome_of
    from engine.analysis.results import analyse
    from engine.analysis.run_screen import RunScreen
    from engine.analysis.stored_run import check_alpha, check_stored_run, read_stored_run
    from engine.training.files import writing

    screen = RunScreen()
    outcomes = []
    for folder in given.words:
        check_stored_run(folder, rule=given.rule)
    if given.alpha is not None:
        check_alpha(given.alpha, given.words, rule=given.rule)
    for folder in given.words:
        # --- read ----------------------------------------------------------------------------
        run = read_stored_run(folder, rule=given.rule)

        # --- analyze -------------------------------------------------------------------------
        found = analyse(run, alpha=given.alpha or ALPHA)
        outcomes.append(outcome_of(run, found))

        # --- show, write ---------------------------------------------------------------------
        screen.run(found)
        out = given.folder_of(folder)
        _write(found, out / "analysis.json")
        if not given.no_figures:
            with writing(out):
                draw(found, out)
        screen.say(f"written: {out}")

    # --- compare -----------------------------------------------------------------------------
    if len(outcomes) > 1:
        ComparisonScreen().comparison(compare(outcomes))
    return 0


def _analyze_table(given: Arguments) -> int:
    """Analyze the finished runs of a table, and print a line for each of its methods."""
    from engine.analysis.comparison_screen import ComparisonScreen
    from engine.analysis.table_rows import analyse_table

    screen = ComparisonScreen()
    found = analyse_table(given.words[0], alpha=given.alpha)
    screen.table(found)
    if given.out is not None:
        file = given.out.expanduser() / "analysis.json"
        _write(found, file)
        screen.say(f"written: {file}")
    return 0


def _write(found: Mapping[str, Any], file: Path) -> None:
    from engine.training.files import write_json, writing

    with writing(file):
        write_json(file, found)


def _show_differences(given: Arguments) -> int:
    """Print what two runs differ in."""
    from engine.analysis.comparison_screen import ComparisonScreen
    from engine.analysis.differences import differences

    first, second = given.words
    ComparisonScreen().differences(differences(first, second))
    return 0
