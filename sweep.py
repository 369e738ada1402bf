"""Tune any keys of a run with Optuna, and find out whether the answer can be believed.

``python sweep.py --help`` shows what a search file holds. Heavy imports wait until a study begins.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before all other imports, which take seconds and the environment
    from engine.config.launch import launch

    sys.exit(launch("sweep"))

import contextlib
from collections.abc import Sequence
from pathlib import Path

from engine.config.mistakes import ConfigError
from engine.config.schema import Config
from engine.tuning.search import command_line
from engine.tuning.search.checks import checked
from engine.tuning.search.methods import check_epochs

DIVERGED = (
    "the last ten trials have all diverged, and so the search stops; a lower optim.lr, or "
    "optim.clip_norm=1, may help"
)


def sweep(
    arguments: command_line.Arguments, *, argv: Sequence[str], stack: contextlib.ExitStack
) -> int:
    """Make one study, top to bottom: check, search, confirm, report; return the exit code.

    Any number of processes search and confirm together. The one that was started without
    ``--join`` reports. Connections to the storage are closed by the ``stack``.

    Raises:
        ConfigError: a mistake in the search file, the config, or one that only the data can tell.
        Interrupted: by a signal; the same command resumes the sweep.
        WriteError: the disk is full, say, or the storage has been gone for too long.
    """
    # --- check: every corner of the space loads before anything is run or written ----------------
    search = arguments.search
    configs = checked(search)

    # --- study -----------------------------------------------------------------------------------
    from engine.tuning.study.session import open_session, work_on

    session = open_session(search, configs, url=arguments.storage, is_joining=arguments.join)
    stack.callback(session.close)
    folder, study, display = session.folder, session.study, session.display

    # --- search and confirm: in this process, or in processes that join --------------------------
    from engine.tuning.confirm.study_report import confirm_study, report
    from engine.tuning.study.processes import work_in_processes
    from engine.tuning.study.trials import all_non_finite, ended_trials
    from engine.tuning.study.wandb_study import record

    display.begin(study)
    with display.live():
        if arguments.workers > 1:
            work_in_processes(
                arguments, folder.path, show=lambda: display.show(study), say=display.say, argv=argv
            )
        elif (runner := work_on(session, command=_command(argv))) is not None:
            confirm_study(search, study, folder, run=runner.run_whole, begins=display.confirm)
        display.show(study)
    if all_non_finite(ended_trials(study)):
        print(DIVERGED, file=sys.stderr)
        return 1
    if arguments.join:
        return 0

    # --- report: table, figures, best.yaml, and the command that trains it -----------------------
    found = report(search, study, folder)
    record(search, folder, study=study, figures=found.drawn.figures, say=display.say)
    display.close(found.shown)
    return 0


def compare(
    arguments: command_line.Arguments, *, argv: Sequence[str], stack: contextlib.ExitStack
) -> int:
    """Make several studies, alike in all but the method, then train the best of each again.

    Raises:
        As :func:`sweep`.
    """
    # --- check -----------------------------------------------------------------------------------
    configs = _checked_methods(arguments)

    # --- studies ---------------------------------------------------------------------------------
    from engine.tuning.confirm.comparison import open_comparison
    from engine.tuning.study.processes import work_in_processes

    comparison = open_comparison(arguments, configs)
    stack.callback(comparison.close)

    # --- search, one method after the other, and confirm -----------------------------------------
    comparison.begin()
    if arguments.workers > 1:
        show, say = comparison.show, comparison.display.say
        work_in_processes(arguments, comparison.folder.path, show=show, say=say, argv=argv)
        comparison.show()
    else:
        comparison.work(command=_command(argv))
    if arguments.join:
        return 0

    # --- report: curves, table, and each method's own figures ------------------------------------
    comparison.finish()
    return 0


def _checked_methods(arguments: command_line.Arguments) -> list[list[Config]]:
    configs = [checked(method) for method in arguments.methods]
    check_epochs(arguments.methods, configs)
    return configs


def _command(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the command as each run's environment.json records it."""
    return ("sweep.py", *command_line.without_storage(argv))


def main(argv: Sequence[str]) -> int:
    """Run the command line, and return the exit code."""
    try:
        if command_line.is_help(argv):
            print(command_line.HELP, end="")
            return 0
        arguments = command_line.parse(argv)
        if arguments.submit is not None:
            return _sent(arguments, arguments.submit, argv)
        return _stopped_cleanly(arguments, argv)
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2


def _sent(arguments: command_line.Arguments, request: Path, argv: Sequence[str]) -> int:
    """Check what the jobs would, and send them."""
    from engine.cluster.submit import submit

    if arguments.methods:
        _checked_methods(arguments)
    else:
        checked(arguments.search)
    first, others = (command_line.for_another_process(argv, join=join) for join in (False, True))
    return submit(request, "sweep.py", first, joining=others)


def _stopped_cleanly(arguments: command_line.Arguments, argv: Sequence[str]) -> int:
    from engine.training.files import WriteError
    from engine.training.signals import Interrupted

    try:
        with contextlib.ExitStack() as stack:
            return (compare if arguments.methods else sweep)(arguments, argv=argv, stack=stack)
    except Interrupted as stop:
        print(f"{stop}; run the same command to resume")
        return stop.exit_code
    except WriteError as error:
        print(error, file=sys.stderr)
        return 1
