"""Predict image files with a trained run, evaluate it on labelled ones, or export its model.

``python predict.py runs/photos/0123456789ab new_photos --csv predicted.csv``; with ``--evaluate``
folders of class folders; with ``--export`` a file for torch.export or ONNX. Heavy imports wait
until something is to be predicted, so that ``--help`` and a typo answer at once.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before all other imports, which take seconds and the environment
    from engine.config.launch import launch

    sys.exit(launch("predict"))

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.config.mistakes import ConfigError
from engine.prediction.command_line import USAGE, Arguments, parse

if TYPE_CHECKING:
    from rich.table import Table

    from engine.analysis.calibrated_sets import CalibratedSets
    from engine.prediction.answers import Answers
    from engine.prediction.labels import Labelled
    from engine.prediction.model import Model

SHOWN = 20
TOP = 3
BATCH_SIZE = 256


def main(argv: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    from engine.training.files import WriteError

    try:
        given = parse(argv)
        if given.help:
            print(USAGE, end="")
            return 0
        return _predict(given) if given.export is None else _export(given)
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 2
    except WriteError as error:
        print(error, file=sys.stderr)
        return 1


def _predict(given: Arguments) -> int:
    """Predict every file that can be read; return the exit code."""
    import numpy as np

    from engine.prediction.answers import Answers
    from engine.prediction.image_files import Preparation
    from engine.prediction.labels import labelled
    from engine.prediction.model import Model

    # --- what there is -----------------------------------------------------------------------
    model = Model.of(given.run, rule=given.rule, device=given.device or "auto", tau=given.tau)
    labels = labelled(given.images, model.classes) if given.evaluate else None
    sets = _calibrated_sets(model, given)
    asked = list(labels.targets) if labels is not None else _image_files(given.images)

    # --- images to probabilities -------------------------------------------------------------
    files, probabilities, features, num_mistakes = [], [], [], 0
    preparation = Preparation(model.image_shape, model.read_image)
    for group in preparation.batches(asked, batch_size=given.batch_size or BATCH_SIZE):
        num_mistakes += len(group.mistakes)
        for mistake in group.mistakes:
            print(mistake, file=sys.stderr)
        if group.files:
            files += group.files
            answered = model.answer(group.images)
            probabilities.append(answered.probabilities)
            if given.features is not None:
                features.append(answered.features)

    # --- answers -----------------------------------------------------------------------------
    if files:
        kept = np.concatenate(features) if features else None
        whole = np.concatenate(probabilities)
        inside = None if sets is None else sets.members(whole)
        answers = Answers(files, whole, model.class_names, kept, inside)
        if given.features is not None:
            _write_features(given.features, answers)
        if sets is not None:
            print(sets.sentence)
        if labels is not None:
            _show_scores(model, answers, labels, given)
        else:
            print(f"{given.run}: {model.origin}")
            if model.run.threshold is not None:
                limit, positive = model.run.threshold, model.class_names[1]
                print(
                    f"{positive} is predicted above 0.5; chosen for F1 on validation: {limit:.3g}"
                )
            _show(answers, given)
    if num_mistakes:
        print(f"not predicted: {num_mistakes} of {len(asked)} files", file=sys.stderr)
    return 1 if num_mistakes else 0


def _calibrated_sets(model: Model, given: Arguments) -> CalibratedSets | None:
    """Return how sets are made, where they are asked for."""
    from engine.analysis.calibrated_sets import calibrated_sets
    from engine.analysis.conformal import ALPHA

    if given.sets is None:
        return None
    alpha = ALPHA if given.alpha is None else given.alpha
    return calibrated_sets(
        given.run, rule=model.run.rule, way=given.sets, alpha=alpha, tau=given.tau
    )


def _export(given: Arguments) -> int:
    """Write the model as a file of its own; return the exit code."""
    from engine.prediction.model import Model
    from engine.prediction.program import export

    assert given.export is not None
    model = Model.of(given.run, rule=given.rule, device="cpu", tau=given.tau)
    difference = export(model, given.export.expanduser())
    print(f"{given.run}: {model.origin}")
    print(f"written: {given.export}; its probabilities are the run's to {difference:.1g}")
    return 0


def _image_files(images: Sequence[Path]) -> list[Path]:
    """Return the image files that were named or are in the folders named.

    Raises:
        ConfigError: there are none.
    """
    from engine.prediction.image_files import find

    found = find(images)
    if found.num_others:
        print(f"left out, not image files by name: {found.num_others}", file=sys.stderr)
    if not found.files:
        raise ConfigError([f"{images[0]}: no image files there"])
    return list(found.files)


def _show(answers: Answers, given: Arguments) -> None:
    """Write the CSV where one is asked for, and print the table, which a CSV cuts short."""
    limit = None
    if given.csv is not None:
        _write(given.csv, answers.csv())
        limit = SHOWN
    _print(answers.table(top=given.top or TOP, limit=limit))
    if given.csv is not None:
        rest = max(len(answers.files) - SHOWN, 0)
        print(f"{f'and {rest} more, ' if rest else ''}all in {given.csv}")


def _show_scores(model: Model, answers: Answers, labels: Labelled, given: Arguments) -> None:
    """Print what the answers are worth, and write the files that are asked for."""
    import json

    import numpy as np

    from engine.prediction.scores import Scores

    remarks = list(labels.remarks)
    if num_lost := len(labels.targets) - len(answers.files):
        remarks.append(f"left out: {num_lost} of {len(labels.targets)} files, which are no images")
    targets = np.array([labels.targets[file] for file in answers.files])
    scores = Scores.of(model, answers, targets=targets, remarks=remarks)
    content = json.dumps(scores.json(source=given.images), indent=2, allow_nan=False)
    if given.csv is not None:
        _write(given.csv, scores.csv())
    if given.json is not None:
        _write(given.json, f"{content}\n")
    print(f"{given.run}: {scores.title}")
    if answers.sets is not None:
        covered = answers.sets[np.arange(len(targets)), targets].mean()
        size = answers.sets.sum(axis=1).mean()
        print(f"{given.sets} sets: {covered:.1%} hold the true class, {size:.2f} classes each")
    _print(*scores.tables())
    for remark in remarks:
        print(f"note: {remark}")
    for file in (given.csv, given.json):
        if file is not None:
            print(f"written: {file}")


def _print(*tables: Table) -> None:
    from rich.console import Console

    # As wide as its file names: a shortened one names nothing.
    console = Console(highlight=False, soft_wrap=True, width=10_000)
    for table in tables:
        console.print(table)


def _write(file: Path, text: str) -> None:
    from engine.training.files import write_text, writing

    with writing(file):
        write_text(file.expanduser(), text)


def _write_features(file: Path, answers: Answers) -> None:
    from engine.training.files import write_bytes, writing

    with writing(file):
        write_bytes(file.expanduser(), answers.npz())
