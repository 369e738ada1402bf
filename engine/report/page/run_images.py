"""The test images of a finished run, to show those on which it was wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.config.mistakes import ConfigError
from engine.report.page.tiles import Split
from engine.report.reading import Run

if TYPE_CHECKING:
    from engine.training.repeats import Repeats


class Found(NamedTuple):
    """The test split, or why there is none, and what is there twice."""

    test: Split | None
    remark: str
    repeats: Repeats | None


def images_or_remark(run: Run) -> Found:
    """Load the test images of a run; nothing is downloaded."""
    from engine.training.repeats import find_repeats

    try:
        dataset = _dataset(run)
    except (ConfigError, ValueError) as error:  # a DataError is a ValueError
        return Found(None, f"The images of mistakes are not shown: {error}", None)
    return Found(dataset.test, "", find_repeats(dataset.splits))


def _dataset(run: Run) -> Any:
    """Return the splits, as they were in the run.

    Raises:
        ConfigError: the data are not at hand any more, or have changed.
    """
    from engine.training.setup import load_dataset

    on_hand = run.config.data.model_copy(update={"download": False})
    dataset = load_dataset(run.config.model_copy(update={"data": on_hand}))
    if not dataset.has_fingerprint(run.summary.split_fingerprint):
        raise ConfigError(["the data have changed since the run"])
    return dataset
