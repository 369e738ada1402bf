"""Ctrl-C and SIGTERM (a scheduler's pre-emption) become a request that the loop grants."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from engine.config.launch import work_begins


class Interrupted(Exception):  # noqa: N818 - it is a request granted, not an error
    """The run stopped because of ``signal_number``, after a checkpoint."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")

    @property
    def exit_code(self) -> int:
        """128 + the signal's number: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal_number


class EndedEarly(Exception):  # noqa: N818 - nothing went wrong
    """Raised by a run's ``report`` to end it where it is; the run has not failed."""


class Interruption:
    """Whether a signal has asked the run to stop: its number, or None."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def _note(self, signal_number: int, _frame: FrameType | None) -> None:
        if self.signal_number is not None and signal_number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait for a checkpoint
        self.signal_number = signal_number


@contextlib.contextmanager
def interruptions() -> Iterator[Interruption]:
    """Catch SIGINT and SIGTERM inside the block; outside the main thread nothing is caught."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    work_begins()
    before = {s: signal.signal(s, interruption._note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise :class:`Interrupted` wherever the block is, as Ctrl-C raises by itself.

    For what can be left at any point; a run that trains inside it is still asked, not cut short.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def cut_short(signal_number: int, _frame: FrameType | None) -> None:
        raise Interrupted(signal_number)

    work_begins()
    before = signal.signal(signal.SIGTERM, cut_short)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
