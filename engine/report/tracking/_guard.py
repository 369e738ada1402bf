"""All trackers of a run, kept from doing it harm: none can raise into it or hold it up for long."""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from engine.report.tracking._base import Closing, Tracker

# What a tracker may cost a run: all its calls, and beyond them the last one.
PATIENCE_SECONDS = 8.0
FINISH_SECONDS = 2.0


class Trackers:
    """The trackers of one run behind the calls of one; an empty list records nothing."""

    def __init__(self, trackers: Sequence[Guarded] = ()) -> None:
        self._trackers = trackers

    def log(self, values: Mapping[str, Any], *, step: int) -> None:
        """Record one epoch, see :meth:`Tracker.log`."""
        for guarded in self._trackers:
            guarded.call(lambda tracker: tracker.log(values, step=step))

    def close(self, closing: Closing) -> None:
        """Record what stands for the whole run."""
        for guarded in self._trackers:
            guarded.call(lambda tracker: tracker.close(closing))

    def finish(self, *, failed: bool = False) -> None:
        """End every record, and give the process its environment back."""
        for guarded in reversed(self._trackers):
            guarded.finish(failed=failed)


class _Call(NamedTuple):
    action: Callable[[Tracker], None]
    done: threading.Event


class Guarded:
    """One tracker, called in a thread of its own.

    The run waits for each call while ``PATIENCE_SECONDS`` last, counted over all calls. From then
    on calls wait in line and the run goes on; what is left of the line at the end of the run is
    given ``FINISH_SECONDS``. The first error switches the tracker off.

    Args:
        make: Makes the tracker, given what it may call with a line for the terminal.
        name: For messages.
        say: Called in the run's own thread with one line when something is wrong.
    """

    def __init__(
        self,
        make: Callable[[Callable[[str], None]], Tracker],
        name: str,
        *,
        say: Callable[[str], None],
    ) -> None:
        self._make, self._name, self._say = make, name, say
        self._tracker = Tracker()
        self._heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._environment: dict[str, str | None] = {}
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._patience = PATIENCE_SECONDS
        self._error: BaseException | None = None
        self._is_off = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)

    def start(self) -> None:
        """Make the tracker, set its environment, import its package and begin the record."""
        try:
            self._tracker = self._make(self._heard.put)
            if not self._tracker.is_on:
                self._is_off = True
                return
            own = self._tracker.environment()
            self._environment = {key: os.environ.get(key) for key in own}
            os.environ.update(own)
            if self._tracker.package:
                importlib.import_module(self._tracker.package)
        # Whatever it is, it must not reach the run; a person's Ctrl-C must.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            self._error = error
            self._switch_off()
            return
        self._thread.start()
        self.call(lambda tracker: tracker.start())

    def call(self, action: Callable[[Tracker], None], *, seconds: float = 0.0) -> bool:
        """Hand ``action`` to the tracker; return whether it is done.

        Args:
            action: Called with the tracker, in its thread.
            seconds: To wait at least, whatever patience is left.
        """
        if self._is_off:
            return True
        call = _Call(action, threading.Event())
        self._calls.put(call)
        had, began = self._patience, time.monotonic()
        is_done = call.done.wait(max(had, seconds))
        self._patience = max(had - (time.monotonic() - began), 0.0)
        while not self._heard.empty():
            self._say(self._heard.get())
        if self._error is not None:
            self._switch_off()
        elif had > 0 and self._patience == 0:
            self._say(f"{self._name} is slow: from here on the run does not wait for it")
        return is_done

    def finish(self, *, failed: bool) -> None:
        """End the record and restore the environment."""
        if not self.call(lambda tracker: tracker.finish(failed=failed), seconds=FINISH_SECONDS):
            self._say(f"{self._name}: what it had not taken by the end of the run is not there")
        self._is_off = True
        self._calls.put(None)
        for key, value in self._environment.items():
            os.environ.pop(key, None) if value is None else os.environ.update({key: value})
        self._environment = {}

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if self._error is None:
                try:
                    call.action(self._tracker)
                # Trackers raise OSError, errors of their own and even SystemExit.
                except BaseException as error:  # noqa: BLE001
                    with contextlib.suppress(BaseException):
                        self._tracker.abandon()
                    self._error = error
            call.done.set()

    def _switch_off(self) -> None:
        self._is_off = True
        error = self._error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(": ")
        self._say(f"{self._name} is off for the rest of this run: {reason}")
