"""Predict image files with a trained run: a table on the screen, and a CSV.

``python predict.py runs/photos/0123456789ab new_photos --csv predicted.csv``. Heavy imports wait
until something is to be predicted, so that ``--help`` and a typo answer at once.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before all other imports, which take seconds and the environment
    from engine.config.launch import launch

    sys.exit(launch("predict"))

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.config.mistakes import ConfigError
from engine.prediction.command_line import USAGE, Arguments, parse

if TYPE_CHECKING:
    from engine.prediction.answers import Answers

SHOWN = 20


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    try:
        given = parse(argv)
        if given.help:
            print(USAGE, end="")
            return 0
        return _predict(given)
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2


def _predict(given: Arguments) -> int:
    """Predict every file that can be read; return the exit code."""
    import numpy as np

    from engine.prediction.answers import Answers
    from engine.prediction.image_files import Preparation, find
    from engine.prediction.model import Model

    # --- what there is -----------------------------------------------------------------------
    model = Model.of(given.run, rule=given.rule, device=given.device)
    found = find(given.images)
    if found.num_others:
        print(f"left out, not image files by name: {found.num_others}", file=sys.stderr)
    if not found.files:
        raise ConfigError([f"{given.images[0]}: no image files there"])

    # --- images to probabilities -------------------------------------------------------------
    files, probabilities, num_mistakes = [], [], 0
    preparation = Preparation(model.image_shape, model.decoding)
    for group in preparation.batches(found.files, batch_size=given.batch_size):
        num_mistakes += len(group.mistakes)
        for mistake in group.mistakes:
            print(mistake, file=sys.stderr)
        if group.files:
            files += group.files
            probabilities.append(model.probabilities(group.images))

    # --- answers -----------------------------------------------------------------------------
    if files:
        print(f"{given.run}: weights after epoch {model.run.epoch} of {model.num_epochs}")
        _show(Answers(files, np.concatenate(probabilities), model.class_names), given)
    if num_mistakes:
        print(f"not predicted: {num_mistakes} of {len(found.files)} files", file=sys.stderr)
    return 1 if num_mistakes else 0


def _show(answers: Answers, given: Arguments) -> None:
    """Write the CSV where one is asked for, and print the table, which a CSV cuts short."""
    from rich.console import Console

    from engine.training.files import write_text

    limit = None
    if given.csv is not None:
        write_text(given.csv.expanduser(), answers.csv())
        limit = SHOWN
    # As wide as its file names: a shortened one names nothing.
    console = Console(highlight=False, soft_wrap=True, width=10_000)
    console.print(answers.table(top=given.top, limit=limit))
    if given.csv is not None:
        rest = max(len(answers.files) - SHOWN, 0)
        print(f"{f'and {rest} more, ' if rest else ''}all in {given.csv}")
