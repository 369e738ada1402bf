"""The test images of a finished run, to show those on which it was wrong."""

from __future__ import annotations

from typing import NamedTuple

from engine.config.mistakes import ConfigError
from engine.report.page.tiles import Images
from engine.report.reading import Run


class Found(NamedTuple):
    """Images of the test split in its order, or why there are none."""

    images: Images | None
    remark: str


def images_or_remark(run: Run) -> Found:
    """Load the test images of a run; nothing is downloaded."""
    try:
        return Found(_test_images(run), "")
    except (ConfigError, ValueError) as error:  # a DataError is a ValueError
        return Found(None, f"The images of mistakes are not shown: {error}")


def _test_images(run: Run) -> Images:
    """Return the images of the test split, as they were in the run.

    Raises:
        ConfigError: the data are not at hand any more, or have changed.
    """
    from engine.training.setup import load_dataset

    on_hand = run.config.data.model_copy(update={"download": False})
    dataset = load_dataset(run.config.model_copy(update={"data": on_hand}))
    if dataset.split_fingerprint != run.summary.split_fingerprint:
        raise ConfigError(["the data have changed since the run"])
    return dataset.test.images
