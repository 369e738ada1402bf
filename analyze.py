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
    from engine.analysis.superclasses import read_superclasses
    from engine.training.facts import read_facts
    from engine.training.files import writing

    screen = RunScreen()
    outcomes = []
    superclasses = {}
    for folder in given.words:
        check_stored_run(folder, rule=given.rule)
        if given.superclasses is not None:
            names = read_facts(folder)["class_names"]
            superclasses[folder] = read_superclasses(given.superclasses, names)
    if given.alpha is not None:
        check_alpha(given.alpha, given.words, rule=given.rule)
    for folder in given.words:
        # --- read ----------------------------------------------------------------------------
        run = read_stored_run(folder, rule=given.rule)

        # --- analyze -------------------------------------------------------------------------
        found = analyse(run, alpha=given.alpha or ALPHA, superclasses=superclasses.get(folder))
        outcomes.append(outcome_of(run, found))
        out = given.folder_of(folder)
        page = _page_of_run(given, folder, found) if given.html else None

        # --- show, write ---------------------------------------------------------------------
        screen.run(found)
        _write(found, out / "analysis.json")
        if page is not None:
            screen.say(f"written: {page}")
        if not given.no_figures:
            with writing(out):
                draw(found, out)
        screen.say(f"written: {out}")

    # --- compare -----------------------------------------------------------------------------
    if len(outcomes) > 1:
        compared, file = compare(outcomes), given.comparison_file
        ComparisonScreen().comparison(compared)
        _write(compared, file)
        screen.say(f"written: {file}")
    return 0


def _page_of_run(given: Arguments, folder: Path, found: dict[str, Any]) -> Path:
    """Write the page of a run with its analysis, and name the files of its surest mistakes."""
    from engine.analysis.page_sections import sections_of_run
    from engine.config.messages import one_line
    from engine.report.page import write_page
    from engine.report.page.run_images import images_or_remark
    from engine.report.reading import read_run
    from engine.training.files import writing

    shown = images_or_remark(read_run(folder))
    if shown.test is not None:
        for row in found["confusions"]["surest_mistakes"]:
            if (file := shown.test.file(row["position"])) is not None:
                row["file"] = one_line(file)
    to = folder.expanduser() if given.out is None else given.folder_of(folder)
    with writing(to):
        return write_page(
            folder,
            test=shown.test,
            remark=shown.remark,
            repeats=shown.repeats,
            sections=sections_of_run(found),
            to=to,
        )


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
        if given.html:
            screen.say(f"written: {_page_of_table(found, given.out.expanduser())}")
    return 0


def _page_of_table(found: Mapping[str, Any], folder: Path) -> Path:
    from engine.analysis.page_sections import document_of_table
    from engine.report.page import FILE, html
    from engine.training.files import write_text, writing

    with writing(folder):
        write_text(folder / FILE, html(document_of_table(found)))
    return folder / FILE


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
