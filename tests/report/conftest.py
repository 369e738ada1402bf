"""Tracker tests on a busy machine: only those that take the time are impatient."""

import pytest

from engine.report.tracking import _guard


@pytest.fixture(autouse=True, scope="session")
def _patience() -> None:
    _guard.PATIENCE_SECONDS = 60.0
