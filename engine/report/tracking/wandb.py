"""Weights & Biases: a mirror of the run folder, offline unless it was asked to send."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from engine.report.tracking._base import Closing, TrackedRun, Tracker

# What a server that does not answer may cost a run in all: looking for it, the table at the end
# (wandb asks the server first), sending what is left, the end of its background process.
INIT_SECONDS = 4
LOG_SECONDS = 5
FINISH_SECONDS = 3
SERVICE_SECONDS = 2
# Offline nothing has to answer but wandb's own background process, and a busy machine starts that
# late; the run itself goes on meanwhile.
OFFLINE_SECONDS = 60

PROJECT = "tailfocus"
NO_CONNECTION = "W&B: no connection; this run is recorded offline (send it with wandb sync)"


class Wandb(Tracker):
    """Weights & Biases; everything it writes goes below ``wandb/`` in the run folder.

    Args:
        mode: W&B mode; the variable WANDB_MODE overrides it
        project: W&B project; null: WANDB_PROJECT, or else tailfocus
        entity: W&B user or team; null: WANDB_ENTITY, or else the account's own
        tags: W&B tags; none: those of WANDB_TAGS
        notes: W&B notes on the run; null: WANDB_NOTES
    """

    title: ClassVar[str] = "W&B"
    package: ClassVar[str] = "wandb"

    def __init__(
        self,
        run: TrackedRun,
        say: Callable[[str], None],
        *,
        mode: Literal["offline", "online", "disabled"] = "offline",
        project: str | None = None,
        entity: str | None = None,
        tags: tuple[str, ...] = (),
        notes: str | None = None,
    ) -> None:
        self.tracked, self.say = run, say
        self.mode = chosen_mode(mode)
        # wandb itself reads its variables once a process, and this may be another run of it.
        self.project = project or os.environ.get("WANDB_PROJECT") or PROJECT
        self.entity = entity or os.environ.get("WANDB_ENTITY")
        self.tags = tags or tuple(filter(None, os.environ.get("WANDB_TAGS", "").split(",")))
        self.notes = notes or os.environ.get("WANDB_NOTES")
        self.folder = run.folder / "wandb"
        self.last_step = 0
        self.run: Any = None

    @property
    def is_on(self) -> bool:
        """Whether the mode is another than ``disabled``."""
        return self.mode != "disabled"

    def environment(self) -> Mapping[str, str]:
        """Keep every file of W&B below the run folder, so that the folder can be moved whole.

        Its settings are only read, and stay where ``wandb login`` left them: they name the server.
        Its reports on itself are off: nobody asked for them, and with a server that hangs they hold
        Python's exit up for ten seconds.
        """
        return {
            "WANDB_ERROR_REPORTING": os.environ.get("WANDB_ERROR_REPORTING", "false"),
            # Else login asks the server who is logged in, to say so.
            "WANDB_SILENT": "true",
            "WANDB_HTTP_TIMEOUT": os.environ.get("WANDB_HTTP_TIMEOUT", "2"),
            "WANDB_DATA_DIR": str(self.folder / "data"),
            "WANDB_CACHE_DIR": str(self.folder / "cache"),
        }

    def start(self) -> None:
        """Begin a segment of the run; online falls back to offline."""
        for name in ("data", "cache"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        try:
            self._start(self.mode)
        # CommError, UsageError, RuntimeError and more; offline there is nothing to fall back to.
        except Exception:
            if self.mode != "online":
                raise
            _forget_the_service()
            self._start("offline")
            self.say(NO_CONNECTION)

    def log(self, values: Mapping[str, Any], *, step: int) -> None:
        """Record one epoch; the explicit step keeps resumed segments in line."""
        import wandb

        sent = {
            key: wandb.Histogram(value.tolist()) if isinstance(value, np.ndarray) else value
            for key, value in values.items()
        }
        # Without commit, wandb holds a row back until one with a larger step comes, and a killed
        # run has lost its last epoch.
        self.run.log(sent, step=step, commit=True)
        self.last_step = step

    def close(self, closing: Closing) -> None:
        """Record the closing numbers, the figures, the per-class table and the confusion matrix."""
        with _service_ended_after(LOG_SECONDS):
            self.run.summary.update(dict(closing.values))
            # The last epoch's row is closed. A table comes last: wandb asks the server before it
            # logs one.
            for content in (_images(closing), _tables(closing)):
                if content:
                    self.run.log(content, step=self.last_step + 1)

    def finish(self, *, failed: bool) -> None:
        """End the segment."""
        with _service_ended_after(FINISH_SECONDS + SERVICE_SECONDS):
            self.run.finish(exit_code=int(failed))

    def abandon(self) -> None:
        """Let go of wandb's background process."""
        self.run = None
        _forget_the_service()

    def _start(self, mode: str) -> None:
        import wandb

        settings = wandb.Settings(
            init_timeout=INIT_SECONDS if mode == "online" else OFFLINE_SECONDS,
            finish_timeout=FINISH_SECONDS,
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
            # The default of 15 s loses the last epochs of a killed run.
            x_transaction_log_flush_interval=0.1,
        )
        # Asks nobody: neither for a key at the terminal, nor the server whether the key is good.
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no API key (wandb login)")
        self.run = wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.tracked.group,
            name=self.tracked.name,
            tags=self.tags,
            notes=self.notes,
            id=self.tracked.run_id,
            dir=str(self.tracked.folder),
            mode=mode,  # type: ignore[arg-type]
            resume="allow",
            config=dict(self.tracked.config),
            settings=settings,
        )
        _forget_the_service_at_exit()
        self.run.define_metric("epoch")
        self.run.define_metric("*", step_metric="epoch")


def chosen_mode(configured: str) -> str:
    """Return ``WANDB_MODE`` where it is set, else the config's mode."""
    mode = os.environ.get("WANDB_MODE", "").strip().lower()
    return {"dryrun": "offline", "run": "online"}.get(mode, mode) or configured


def _images(closing: Closing) -> dict[str, Any]:
    import wandb

    return {name: wandb.Image(str(path)) for name, path in closing.images.items()}


def _tables(closing: Closing) -> dict[str, Any]:
    import wandb

    found: dict[str, Any] = {}
    if closing.classes:
        columns: list[str | int] = list(closing.classes[0])
        rows = [list(row.values()) for row in closing.classes]
        found["test/classes"] = wandb.Table(columns=columns, data=rows)
    if closing.confusion is not None:
        targets, predicted, names = closing.confusion
        found["test/confusion_matrix"] = wandb.plot.confusion_matrix(
            y_true=list(targets), preds=list(predicted), class_names=list(names)
        )
    return found


def _forget_the_service() -> None:
    """Let go of wandb's background process, which may be dead or hold a run that never began.

    Otherwise wandb prints a traceback when Python exits, refuses the same run in another mode, and
    every later run of this process would talk to the dead one too.
    """
    with contextlib.suppress(Exception, SystemExit):
        import wandb

        with _service_ended_after(SERVICE_SECONDS):
            wandb.teardown()


@contextlib.contextmanager
def _service_ended_after(seconds: float) -> Iterator[None]:
    """Kill wandb's background process if the block takes longer: wandb may wait for it for ever."""
    killer = None
    with contextlib.suppress(Exception):  # there may be none, or another version's of wandb
        killer = threading.Timer(seconds, _end, [_service()])
        killer.daemon = True
        killer.start()
    try:
        yield
    finally:
        if killer is not None:
            killer.cancel()


def _end(service: subprocess.Popen[bytes]) -> None:
    """Kill wandb's background process, and let no child process of this one look for it."""
    service.kill()
    os.environ.pop("WANDB_SERVICE", None)


def _service() -> subprocess.Popen[bytes]:
    """Return wandb's background process, for which wandb has no public name."""
    from wandb.sdk import wandb_setup

    process: subprocess.Popen[bytes] = wandb_setup.singleton()._connection._proc._process  # type: ignore[union-attr]
    return process


@functools.cache
def _forget_the_service_at_exit() -> None:
    """Run before wandb's own exit handler, which would wait for a service that hangs."""
    atexit.register(_forget_the_service)
