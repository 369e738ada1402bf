"""Make a table: run what is missing of methods x settings x seeds, resume what was cut off.

``python reproduce.py experiments/papers/digits_lt.yaml``. Every finished run adds a
line to ``experiments/results/<table>.jsonl``; several processes may share one table.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before all other imports, which take seconds and the environment
    from engine.config.launch import launch

    sys.exit(launch("reproduce"))

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config.mistakes import ConfigError
from engine.tables.command_line import Plan, parse, plan_of, usage
from engine.tables.tuned import require_tuned

if TYPE_CHECKING:
    from engine.tables.progress import Display


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    try:
        given = parse(argv)
        if given.help:
            print(usage(), end="")
            return 0
        if given.tune:
            return _tune(given.table, argv)
        plan = plan_of(given)
        require_tuned(plan.table, given.table)
        if given.submit is not None:
            from engine.cluster.submit import submit

            return submit(given.submit, "reproduce.py", argv)
        if given.list:
            from engine.tables.progress import listing

            print(*listing(plan), sep="\n")
            return 0
        return _make(plan, argv, is_check=given.check, has_costs=given.cost)
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2


def _tune(path: Path, argv: Sequence[str]) -> int:
    """Tune every cell of a table, and say where what was found is."""
    from engine.tables.table_file import read_table_file
    from engine.tables.tuned import tune
    from engine.training.files import WriteError
    from engine.training.signals import Interrupted

    try:
        found = tune(read_table_file(path), path, command=("reproduce.py", *argv), say=print)
    except Interrupted as stop:
        print(f"{stop}; run the same command to resume")
        return stop.exit_code
    except WriteError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{found}: written; python reproduce.py {path} makes the runs")
    return 0


def _make(plan: Plan, argv: Sequence[str], *, is_check: bool, has_costs: bool) -> int:
    """Run what is left, print the table, and say what is still missing."""
    from engine.tables.progress import Display
    from engine.tables.worker import TimeUpError
    from engine.training.files import WriteError
    from engine.training.signals import Interrupted

    display = Display(plan.cells, plan.task, workers=plan.workers, table=plan.every)
    is_out_of_time = False
    if is_check:
        _say_what_is_there(plan, display)
    try:
        _rename(plan, display)
        if plan.task.left_of(plan.cells):
            with display.working():
                _work(plan, argv, display)
    except TimeUpError:
        is_out_of_time = True
    except Interrupted as stop:
        display.say(f"{stop}; run the same command to resume")
        return stop.exit_code
    except WriteError as error:
        print(error, file=sys.stderr)
        return 1
    left = plan.task.left_of(plan.cells)
    _tidy(plan)
    _print_table(plan, has_costs=has_costs)
    if left:
        why = "the time is up: " if is_out_of_time else ""
        display.say(
            f"{why}{len(left)} of {len(plan.cells)} runs left; run the same command to resume"
        )
    if is_check and not left:
        return _compare(plan, display)
    return 1 if display.failures or (left and not is_out_of_time) else 0


def _rename(plan: Plan, display: Display) -> None:
    """Give lines of rows and settings that the table file calls otherwise now their new names."""
    from engine.tables.names import names_of, rename
    from engine.training.files import WriteError

    try:
        number = rename(plan.task.results, names_of(plan.table))
    except WriteError as error:
        if plan.task.left_of(plan.cells):
            raise
        display.say(f"{error}; the table is shown under the names of today")
        return
    if number:
        lines = "1 line has the name" if number == 1 else f"{number} lines have the names"
        display.say(f"{plan.task.results}: {lines} that the table gives now")


def _work(plan: Plan, argv: Sequence[str], display: Display) -> None:
    """Run what is left, in this process or in several."""
    from engine.tables.pool import work_together
    from engine.tables.worker import work

    if plan.workers == 1:
        work(plan.cells, plan.task, notify=display.show, table=plan.every)
    else:
        work_together(argv, plan.task, workers=plan.workers, notify=display.show)


def _tidy(plan: Plan) -> None:
    """Remove what runs have left for rows that are made, or no longer in the table.

    A row that lands does so for the runs that it concerns, unless it is killed on the way.
    """
    from engine.tables.shared_training import remove_unneeded
    from engine.tables.trained_alike import sources_of

    left = {cell.fingerprint for cell in plan.task.left_of(plan.every)}
    remove_unneeded(plan.every, sources_of(plan.every), left=left)


def _print_table(plan: Plan, *, has_costs: bool) -> None:
    """Print every line that there is, not only those of the runs asked for."""
    from engine.tables.record import read
    from engine.tables.table import Table, blocks_of, sheets_of, show, style_of

    table = Table(read(plan.task.results), plan.table)
    if table.records:
        style = style_of(table, has_costs=has_costs)
        show(sheets_of(blocks_of(table), table.references, style=style))


def _say_what_is_there(plan: Plan, display: Display) -> None:
    """Say where a check makes its runs, and how many of them an earlier one has made."""
    place = plan.task.results.parent
    done = len(plan.cells) - len(plan.task.left_of(plan.cells))
    there = "the runs are made again"
    if done:
        there = f"{done} of {len(plan.cells)} runs are there from an earlier check"
        there += " by this code on this machine (remove the folder to make them once more)"
    display.say(f"{place}: {there}")


def _compare(plan: Plan, display: Display) -> int:
    """Compare the runs that were made again with the committed lines."""
    from engine.tables.recheck import compare
    from engine.tables.record import read

    committed = read(plan.committed)
    found = compare(plan.cells, again=read(plan.task.results), committed=committed)
    for line in found.lines:
        display.say(line)
    return 0 if found.holds else 1
