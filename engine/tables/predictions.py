"""Which files the stored predictions of a run are of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import data
from engine.config.load import load_run_config
from engine.config.mistakes import ConfigError, mistakes_of
from engine.training.files import read_json
from engine.training.run_folder import RunFolder
from engine.training.setup import load_dataset


def files_of(run: str | Path, split: Literal["val", "test"]) -> dict[int, Path]:
    """Return the file of each number in ``index`` of ``predictions/<split>.<rule>.npz``.

    ::

        stored = np.load("runs/photos/0123456789ab/predictions/test.val.npz")
        files = files_of("runs/photos/0123456789ab", "test")
        paths = [files[number] for number in stored["index"].tolist()]

    Args:
        run: a run folder.
        split: ``val`` or ``test``.

    Raises:
        ConfigError: the run's images are not files, or no longer those that it was made of.
    """
    config = load_run_config(run, check_named_runs=False)
    if not hasattr(config.data, "cache_gb"):
        raise ConfigError([f"{run}: the images of data.name={config.data.name} are not files"])
    made = read_json(RunFolder(Path(run).expanduser()).environment) or {}
    # As files, which have names, but for an earlier version that told images in memory by pixels.
    on_disk = config.data.model_copy(update={"cache_gb": 0.0, "normalize": "imagenet"})
    with mistakes_of(data.DataError):
        dataset = load_dataset(config.model_copy(update={"data": on_disk}))
        known = made.get("split_fingerprint", "")
        is_same = dataset.has_fingerprint(known) or load_dataset(config).has_fingerprint(known)
    if not is_same:
        raise ConfigError([f"{run}: was made on other files than the folder holds now"])
    part = dataset.test if split == "test" else dataset.val
    if part is None:
        raise ConfigError([f"{run}: has no validation split"])
    if not isinstance(part.images, data.DiskImages):
        raise ConfigError([f"{run}: the images of data.name={config.data.name} are not files"])
    numbers = part.index.tolist()
    return {number: part.images.path(position) for position, number in enumerate(numbers)}
