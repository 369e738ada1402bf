"""Tune any keys of a run with Optuna, and find out whether the answer can be believed.

``python sweep.py --help`` shows what a search file holds. Heavy imports wait until a study begins.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.config.mistakes import ConfigError
from engine.tuning.search import command_line
from engine.tuning.search.methods import check_epochs
from engine.tuning.search.space import checked
from engine.tuning.study.study import all_non_finite, ended_trials

DIVERGED = (
    "the last ten trials have all diverged, and so the search stops; a lower optim.lr, or "
    "optim.clip_norm=1, may help"
)


def sweep(
    arguments: command_line.Arguments, *, argv: Sequence[str], stack: contextlib.ExitStack
) -> int:
    """One study, top to bottom: check, search, confirm, close; returns the exit code.

    Any number of processes search and confirm together. The one that was started without
    ``--join`` closes. Connections to the storage are closed by the ``stack``.

    Raises:
        ConfigError: a mistake in the search file, the config, or one that only the data can tell.
        Interrupted: by a signal; the same command resumes the sweep.
        WriteError: the disk is full, say, or the storage has been gone for too long.
    """
    # --- check: every corner of the space loads before anything is run or written ----------------
    search = arguments.search
    configs = checked(search)

    # --- study -----------------------------------------------------------------------------------
    from engine.tuning.study.session import sit_down, work

    sitting = sit_down(search, configs, url=arguments.storage, is_joining=arguments.join)
    stack.callback(sitting.close)
    folder, study, display = sitting.folder, sitting.study, sitting.display

    # --- search and confirm: in this process, or in processes that join --------------------------
    from engine.tuning.confirm.finish import close, confirm_study

    display.begin(study)
    with display.live():
        if arguments.workers > 1:
            start_workers(arguments, folder.path, show=lambda: display.show(study), argv=argv)
        elif (runner := work(sitting, command=_command(argv))) is not None:
            confirm_study(search, study, folder, run=runner.run_whole, begins=display.confirm)
        display.show(study)
    if all_non_finite(ended_trials(study)):
        print(DIVERGED, file=sys.stderr)
        return 1
    if arguments.join:
        return 0

    # --- close: table, figures, best.yaml, and the command that trains it ------------------------
    from engine.tuning.study.wandb_study import record

    end = close(search, study, folder)
    record(search, folder, study=study, drawn=end.drawn, say=display.say)
    display.close(end.shown)
    return 0


def compare(
    arguments: command_line.Arguments, *, argv: Sequence[str], stack: contextlib.ExitStack
) -> int:
    """Several searches, alike in all but the method, then the best of each on fresh seeds.

    Raises:
        As :func:`sweep`.
    """
    # --- check -----------------------------------------------------------------------------------
    configs = {search.study: checked(search) for search in arguments.methods}
    check_epochs(configs)

    # --- searches, one after the other, and confirm ----------------------------------------------
    from engine.tuning.confirm import comparison_report
    from engine.tuning.confirm.confirm import train_all
    from engine.tuning.study.session import folder_of, sit_down, work

    folder = folder_of(arguments.search)
    names = [
        search.study.removeprefix(f"{arguments.search.study}-") for search in arguments.methods
    ]
    sittings = {
        name: sit_down(
            search, configs[search.study], url=arguments.storage, is_joining=arguments.join
        )
        for name, search in zip(names, arguments.methods, strict=True)
    }
    for sitting in sittings.values():
        stack.callback(sitting.close)

    named: set[str] = set()

    def show() -> None:
        for name, sitting in sittings.items():
            if name not in named and ended_trials(sitting.study):
                named.add(name)
                sitting.display.say(f"{name}:")
            sitting.display.show(sitting.study)

    for sitting in sittings.values():
        sitting.display.begin(sitting.study)
    if arguments.workers > 1:
        start_workers(arguments, folder.path, show=show, argv=argv)
        show()
    else:
        runners = []
        for name, sitting in sittings.items():
            sitting.display.say(f"{name}:")
            with sitting.display.live():
                runners.append(work(sitting, command=_command(argv)))
        if (runner := next(filter(None, runners), None)) is not None:
            todo = comparison_report.comparison_of(sittings, folder).jobs
            train_all(todo, run=runner.run_whole, begins=sitting.display.confirm)
    if arguments.join:
        return 0

    # --- close: curves, table, and each method's own figures -------------------------------------
    from engine.tuning.study.wandb_study import record

    closed = comparison_report.close(comparison_report.comparison_of(sittings, folder))
    for name, end in closed.endings.items():
        one = sittings[name]
        record(one.search, one.folder, study=one.study, drawn=end.drawn, say=one.display.say)
    sitting.display.close(closed.shown)
    return 0


def start_workers(
    arguments: command_line.Arguments,
    folder: Path,
    *,
    show: Callable[[], None],
    argv: Sequence[str],
) -> None:
    """Have processes of this machine work, and show what they do.

    Args:
        arguments: how many, and on which storage.
        folder: where each one's words go, to ``workers/``.
        show: brings the terminal up to date.
        argv: the command line, which they join with.

    Raises:
        ConfigError: what a worker said before it ended with exit code 2.
        Interrupted: by a signal, after the workers have stopped.
    """
    from engine.training.signals import Interrupted, interruptions
    from engine.tuning.study.processes import local_workers

    with (
        interruptions() as interruption,
        local_workers(
            argv,
            number=arguments.workers,
            storage=arguments.storage,
            folder=folder / "workers",
        ) as workers,
    ):
        gone: set[int] = set()
        while len(gone) < len(workers):
            for number, worker in enumerate(workers):
                code = worker.process.poll()
                if code is None or number in gone:
                    continue
                gone.add(number)
                if code == 2:
                    raise ConfigError([f"{worker.log}: {worker.last_words}"])
                if code != 0:
                    print(f"worker {number} has ended: {worker.last_words} ({worker.log})")
            show()
            if interruption.signal_number is not None:
                raise Interrupted(interruption.signal_number)
            time.sleep(0.5)


def _command(argv: Sequence[str]) -> tuple[str, ...]:
    """As it is recorded in each run's environment.json."""
    return ("sweep.py", *command_line.without_storage(argv))


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    try:
        if command_line.is_help(argv):
            print(command_line.HELP, end="")
            return 0
        return _stopped_cleanly(command_line.parse(argv), argv)
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2


def _stopped_cleanly(arguments: command_line.Arguments, argv: Sequence[str]) -> int:
    from engine.training.files import WriteError
    from engine.training.signals import Interrupted

    try:
        with contextlib.ExitStack() as stack:
            return (compare if arguments.methods else sweep)(arguments, argv=argv, stack=stack)
    except Interrupted as stop:
        print(f"{stop}; run the same command to resume")
        return stop.exit_code
    except KeyboardInterrupt:
        print("stopped by SIGINT; run the same command to resume")
        return 130
    except WriteError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
