"""Runs that every test of the analysis may use, each trained once."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests._runs import folder_of, small_run

SHORT = ("model=cifar_resnet8", "schedule.epochs=2", "data.num_test_per_class=12")


class Runs(NamedTuple):
    """Folders of three small runs on the same test images."""

    plain: Path
    balanced: Path
    unvalidated: Path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Cross-entropy and balanced softmax with validation, and cross-entropy without."""
    root = tmp_path_factory.mktemp("analysis")
    words = ((), ("loss=balanced_softmax",), ("data.validation.per_class=null",))
    folders = []
    for given in words:
        small_run(root, *SHORT, *given)
        folders.append(folder_of(root, *SHORT, *given))
    return Runs(*folders)
