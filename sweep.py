"""Tune any keys of a run with Optuna, and find out whether the answer can be believed.

``python sweep.py --help`` shows what a search file holds. Heavy imports wait until a study begins.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config import ConfigError
from tuning import cli
from tuning.space import checked, warmup
from tuning.study import StudyFolder, all_non_finite, ended_trials, num_trials

if TYPE_CHECKING:
    import optuna

    from tuning.display import Display
    from tuning.storage import PatientStorage

DIVERGED = (
    "the last ten trials have all diverged, and so the search stops; a lower optim.lr, or "
    "optim.clip_norm=1, may help"
)


def sweep(arguments: cli.Arguments, *, argv: Sequence[str]) -> int:
    """One study, top to bottom: check, search, confirm, close; returns the exit code.

    Any number of processes search and confirm together. The one that was started without
    ``--join`` closes.

    Raises:
        ConfigError: a mistake in the search file, the config, or one that only the data can tell.
        Interrupted: by a signal; the same command goes on.
        WriteError: the disk is full, say, or the storage has been gone for too long.
    """
    # --- check: every corner of the space loads before anything is run or written ----------------
    search = arguments.search
    configs = checked(search)
    epochs = max(config.schedule.epochs for config in configs)
    by_epoch = search.file.pruner.name in ("median", "hyperband")
    quiet = warmup(search, configs) if by_epoch else None

    # --- study -----------------------------------------------------------------------------------
    from tuning.display import Display
    from tuning.storage import claim_of
    from tuning.strategy import make_pruner

    display = Display(search.file.metrics, num_trials=num_trials(search))
    if quiet is not None:
        display.say(f"nothing is pruned before epoch {quiet.epochs}: {quiet.reason}")
    folder = StudyFolder(Path(search.base().track.root).expanduser() / search.study)
    opening = 60.0 if arguments.join else 0.0  # who joins knows that the storage is there
    storage = folder.open_storage(arguments.storage, say=display.say, opening=opening)
    study = folder.open(search, storage, claim=claim_of(storage, study=search.study))
    study.pruner = make_pruner(search, quiet, epochs=epochs)

    # --- search and confirm: in this process, or in processes that join --------------------------
    display.begin(study)
    with display.live():
        if arguments.workers == 1:
            work(arguments, folder, storage=storage, study=study, display=display, argv=argv)
        else:
            start_workers(arguments, folder, study=study, display=display, argv=argv)
        display.show(study)
    if all_non_finite(ended_trials(study)):
        print(DIVERGED, file=sys.stderr)
        return 1
    if arguments.join:
        return 0

    # --- close: table, figures, best.yaml, and the command that trains it ------------------------
    from tuning import ending
    from tuning.study_run import record

    end = ending.close(search, study, folder)
    record(search, folder, study=study, drawn=end.drawn, say=display.say)
    display.close(end.shown)
    return 0


def work(
    arguments: cli.Arguments,
    folder: StudyFolder,
    *,
    storage: PatientStorage,
    study: optuna.Study,
    display: Display,
    argv: Sequence[str],
) -> None:
    """Search and confirm in this process; torch is imported and data are loaded once."""
    from tuning import ending
    from tuning.processes import starter_is_gone
    from tuning.storage import claim_of
    from tuning.trial import TrialRunner
    from tuning.worker import Worker

    search = arguments.search

    def watch(number: int, epoch: int, epochs: int) -> None:
        display.epoch(number, epoch, epochs)
        display.show_at_times(study)

    command = ("sweep.py", *cli.without_storage(argv))
    runner = TrialRunner(search, folder, command=command, watch=watch)
    worker = Worker(
        search=search,
        folder=folder,
        study=study,
        storage=storage,
        claim=claim_of(storage, study=search.study),
        runner=runner,
        num_trials=num_trials(search),
        deadline=time.monotonic() + (search.file.budget.timeout or math.inf),
        refresh=display.show,
        is_wanted=lambda: not starter_is_gone(),
    )
    if worker.run() in ("done", "timeout"):
        ending.confirm_study(search, study, folder, run=runner.run_whole, begins=display.confirm)


def start_workers(
    arguments: cli.Arguments,
    folder: StudyFolder,
    *,
    study: optuna.Study,
    display: Display,
    argv: Sequence[str],
) -> None:
    """Have processes of this machine work, and show what they do.

    Raises:
        ConfigError: what a worker said before it ended with exit code 2.
        Interrupted: by a signal, after the workers have stopped.
    """
    from engine.interruption import Interrupted, interruptions
    from tuning.processes import local_workers

    with (
        interruptions() as interruption,
        local_workers(
            argv,
            number=arguments.workers,
            storage=arguments.storage,
            folder=folder.path / "workers",
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
                    display.say(f"worker {number} has ended: {worker.last_words} ({worker.log})")
            display.show(study)
            if interruption.signal_number is not None:
                raise Interrupted(interruption.signal_number)
            time.sleep(0.5)


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    try:
        if cli.is_help(argv):
            print(cli.HELP, end="")
            return 0
        return _stopped_cleanly(cli.parse(argv), argv)
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2


def _stopped_cleanly(arguments: cli.Arguments, argv: Sequence[str]) -> int:
    from engine.interruption import Interrupted
    from engine.run_folder import WriteError

    try:
        return sweep(arguments, argv=argv)
    except Interrupted as stop:
        print(f"{stop}; the same command goes on from here")
        return stop.exit_code
    except KeyboardInterrupt:
        print("stopped by SIGINT; the same command goes on from here")
        return 130
    except WriteError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
