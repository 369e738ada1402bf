"""Several processes at work on one table; the first one shows what they report."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from engine.config.mistakes import ConfigError
from engine.tables.command_line import parse, plan_of
from engine.tables.task import Task
from engine.tables.worker import Event, TimeUpError, work
from engine.training.files import WriteError
from engine.training.signals import Interrupted, Interruption, interruptions

LOOK_SECONDS = 0.5  # between two looks at whether a signal has asked to stop


class End(NamedTuple):
    """Why a worker stopped early: an exception in a form that can be sent."""

    kind: type[Exception]
    details: tuple[str | int, ...]

    def error(self) -> Exception:
        """Return the exception."""
        if self.kind is ConfigError:
            return ConfigError(str(line) for line in self.details)
        return self.kind(*self.details)


def work_together(
    argv: Sequence[str], task: Task, *, workers: int, notify: Callable[[Event], None]
) -> None:
    """Let ``workers`` processes work on the command line ``argv`` until nothing is left.

    Args:
        argv: the command line; every worker makes the same plan of it.
        task: what counts as done, and the deadline.
        workers: number of processes.
        notify: called in this process with what any of them reports.

    Raises:
        ConfigError, Interrupted, TimeUpError, WriteError: as :func:`engine.tables.worker.work`,
            once all of them have stopped.
    """
    # fork would copy torch's threads in whatever state they are.
    context = get_context("spawn")
    members: dict[Connection, BaseProcess] = {}
    with interruptions() as interruption:
        try:
            for _ in range(workers):
                ours, theirs = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(
                    target=_member, args=(tuple(argv), task, theirs)
                )
                process.start()
                theirs.close()
                members[ours] = process
            ends = _listen(members, interruption, notify=notify)
        finally:
            for process in members.values():
                process.terminate()
                process.join()
        if interruption.signal_number is not None:
            raise Interrupted(interruption.signal_number)
    for kind in (ConfigError, WriteError, Interrupted, TimeUpError):
        for end in ends:
            if end.kind is kind:
                raise end.error()


def _listen(
    members: dict[Connection, BaseProcess],
    interruption: Interruption,
    *,
    notify: Callable[[Event], None],
) -> list[End]:
    """Show what the members report until all have ended; return why those stopped that did."""
    ends: list[End] = []
    is_stopping = False
    while members:
        for connection in wait(list(members), LOOK_SECONDS):
            assert isinstance(connection, Connection)
            try:
                message = connection.recv()
            except EOFError:
                process = members.pop(connection)
                process.join()
                if (code := process.exitcode) != 0 and not is_stopping:
                    reason = signal.Signals(-code).name if code and code < 0 else f"status {code}"
                    notify(Event("lost", "", reason))
                continue
            if isinstance(message, End):
                ends.append(message)
            else:
                notify(message)
        must_stop = any(end.kind is not TimeUpError for end in ends)
        if (must_stop or interruption.signal_number is not None) and not is_stopping:
            is_stopping = True
            for process in members.values():
                process.terminate()  # SIGTERM: a checkpoint, then the end
    return ends


def _member(argv: Sequence[str], task: Task, connection: Connection) -> None:
    """Make the plan again and work on it, in a worker process."""
    with contextlib.suppress(
        BrokenPipeError
    ):  # the first process is gone, and with it all interest
        try:
            plan = plan_of(parse(argv))
            work(plan.cells, task, notify=connection.send, table=plan.every)
        except ConfigError as error:
            connection.send(End(ConfigError, error.mistakes))
        except Interrupted as stop:
            connection.send(End(Interrupted, (stop.signal_number,)))
        except WriteError as error:
            connection.send(End(WriteError, (str(error),)))
        except TimeUpError:
            connection.send(End(TimeUpError, ()))
