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
from tuning.study import StudyFolder, num_trials

if TYPE_CHECKING:
    pass


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    try:
        if cli.is_help(argv):
            print(cli.HELP, end="")
            return 0
        return sweep(cli.parse(argv), argv=argv)
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2


def sweep(arguments: cli.Arguments, *, argv: Sequence[str]) -> int:
    """One study, top to bottom: check, search, confirm, figures, closing words.

    Raises:
        ConfigError: a mistake in the search file or the config.
    """
    # --- check: every corner of the space loads before anything is run or written ----------------
    search = arguments.search
    configs = checked(search)
    quiet = warmup(search, configs) if search.file.pruner.name in ("median", "hyperband") else None
    folder = StudyFolder(Path(search.base().track.root).expanduser() / search.study)

    # --- search ----------------------------------------------------------------------------------
    from engine.interruption import Interrupted
    from engine.run_folder import WriteError
    from tuning.display import Display
    from tuning.storage import StorageLostError, claim_of
    from tuning.trial import TrialRunner
    from tuning.worker import Worker, make_pruner

    display = Display(search.file.metrics, num_trials=num_trials(search))
    if quiet is not None:
        display.say(f"nothing is pruned before epoch {quiet.epochs}: {quiet.reason}")
    folder.path.mkdir(parents=True, exist_ok=True)
    storage = folder.open_storage(arguments.storage, say=display.say)
    claim = claim_of(storage, study=search.study)
    study = folder.open(search, storage, claim=claim)
    study.pruner = make_pruner(
        search, quiet, epochs=max(config.schedule.epochs for config in configs)
    )

    def watch(number: int, epoch: int, epochs: int) -> None:
        display.epoch(number, epoch, epochs)
        display.show_at_times(study)

    worker = Worker(
        search=search,
        folder=folder,
        study=study,
        storage=storage,
        claim=claim,
        runner=TrialRunner(
            search,
            folder,
            has_pruner=search.file.pruner.name != "none",
            command=["sweep.py", *cli.without_storage(argv)],
            watch=watch,
        ),
        num_trials=num_trials(search),
        deadline=time.monotonic() + (search.file.budget.timeout or math.inf),
        refresh=display.show,
    )
    try:
        with display.searching(study):
            ending = worker.run()
    except Interrupted as stop:
        display.say(f"{stop}; the same command goes on from here")
        return stop.exit_code
    except (WriteError, StorageLostError) as error:
        print(error, file=sys.stderr)
        return 1
    display.say(f"search: {ending}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
