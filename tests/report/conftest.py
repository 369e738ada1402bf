"""Tracker tests on a busy machine: only those that take the time are impatient."""

import pytest

from engine.report.tracking import _guard


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guard, "PATIENCE_SECONDS", 60.0)
