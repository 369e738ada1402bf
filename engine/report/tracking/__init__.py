"""Weights & Biases as a mirror of the run folder: useful when it works, harmless when it does not.

metrics.jsonl is the truth. Whatever goes wrong in here is said once, switches the mirror off, and
never reaches the training loop.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from engine.training.evaluation import Assessment
    from engine.training.metrics.per_class import PerClass
    from engine.training.summary import Summary

SCALARS_WITH_PRECISION = 20  # classes up to which precision and F1 are scalars too
SCALARS_AUTO = 1000  # classes up to which recall is a scalar a class
CONFUSION_CLASSES = 100
# What a server that does not answer may cost a run in all: looking for it, the table at the end
# (wandb asks the server first), sending what is left, the end of its background process.
INIT_SECONDS = 4
LOG_SECONDS = 5
FINISH_SECONDS = 3
SERVICE_SECONDS = 2

PerClassMode = Literal["auto", "scalars", "table", "off"]


def chosen_mode(configured: str) -> str:
    """``WANDB_MODE`` where it is set, else the config's mode."""
    mode = os.environ.get("WANDB_MODE", "").strip().lower()
    return {"dryrun": "offline", "run": "online"}.get(mode, mode) or configured


class Mirror:
    """One W&B run that follows one run folder.

    Args:
        folder: the run folder; everything W&B writes goes below its ``wandb/``.
        mode: offline, online or disabled; online falls back to offline.
        run_id: the same for every segment of a resumed run.
        identity: project, group and name shown in W&B.
        config: the resolved config as a plain dict.
        say: called with one line when the mirror changes mode or switches itself off.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mode: str,
        run_id: str,
        identity: Mapping[str, str],
        config: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self.folder, self.run_id = folder / "wandb", run_id
        self.identity, self.config, self.say = identity, config, say
        self.run: Any = None
        self.environment: dict[str, str | None] = {}
        if mode == "disabled":
            return
        if not self._attempt(self._set_environment):
            return
        is_on = self._attempt(lambda: self._start(mode), fallback=mode == "online")
        if not is_on and mode == "online" and self._attempt(lambda: self._start("offline")):
            say("W&B: no connection; this run is recorded offline (send it with wandb sync)")

    def log(self, values: Mapping[str, Any], *, step: int) -> None:
        """Record one epoch; the explicit step keeps resumed segments in line.

        An array among the values is recorded as a histogram.
        """
        if self.run is not None:
            self._attempt(lambda: self._log(values, step))

    def log_final(
        self, summary: Summary, *, figures: Mapping[str, Path], test: Assessment, step: int
    ) -> None:
        """Record the closing numbers, the per-class table, the confusion matrix and the figures."""
        if self.run is not None:
            with _service_ended_after(LOG_SECONDS):
                self._attempt(lambda: self._log_final(summary, figures, test, step))

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Record numbers that stand for the whole run."""
        if self.run is not None:
            self._attempt(lambda: self.run.summary.update(dict(values)))

    def log_images(self, images: Mapping[str, Path], *, step: int) -> None:
        """Record image files by name."""
        if self.run is not None:
            self._attempt(lambda: self._log_images(images, step))

    def finish(self, *, failed: bool = False) -> None:
        """End the W&B run and give the process its environment back."""
        if self.run is not None:
            with _service_ended_after(FINISH_SECONDS + SERVICE_SECONDS):
                self._attempt(lambda: self.run.finish(exit_code=int(failed)))
            self.run = None
        for key, value in self.environment.items():
            os.environ.pop(key, None) if value is None else os.environ.update({key: value})
        self.environment = {}

    def _start(self, mode: str) -> None:
        import wandb

        settings = wandb.Settings(
            init_timeout=INIT_SECONDS,
            finish_timeout=FINISH_SECONDS,
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
            # The default of 15 s loses the last epochs of a killed run.
            x_transaction_log_flush_interval=1,
        )
        # Asks nobody: neither for a key at the terminal, nor the server whether the key is good.
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no API key (wandb login)")
        self.run = wandb.init(
            project=self.identity["project"],
            group=self.identity["group"],
            name=self.identity["name"],
            id=self.run_id,
            dir=str(self.folder.parent),
            mode=mode,  # type: ignore[arg-type]
            resume="allow",
            config=dict(self.config),
            settings=settings,
        )
        _forget_the_service_at_exit()
        self.run.define_metric("epoch")
        self.run.define_metric("*", step_metric="epoch")

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        import wandb

        self.run.log(
            {
                key: wandb.Histogram(value.tolist()) if isinstance(value, np.ndarray) else value
                for key, value in values.items()
            },
            step=step,
        )

    def _log_images(self, images: Mapping[str, Path], step: int) -> None:
        import wandb

        self.run.log({name: wandb.Image(str(path)) for name, path in images.items()}, step=step)

    def _log_final(
        self, summary: Summary, figures: Mapping[str, Path], test: Assessment, step: int
    ) -> None:
        import wandb

        classes = [c.model_dump() for c in summary.result.classes]
        columns: list[str | int] = list(classes[0])
        rows = [list(row.values()) for row in classes]
        tables: dict[str, Any] = {"test/classes": wandb.Table(columns=columns, data=rows)}
        if len(classes) <= CONFUSION_CLASSES:
            tables["test/confusion_matrix"] = wandb.plot.confusion_matrix(
                y_true=test.predictions.targets.tolist(),
                preds=test.probabilities.argmax(1).tolist(),
                class_names=[str(row["name"]) for row in classes],
            )
        self.run.summary.update(closing_values(summary))
        self._log_images({f"figures/{name}": path for name, path in figures.items()}, step)
        # Last, because wandb asks the server before it logs a table.
        self.run.log(tables, step=step)

    def _set_environment(self) -> None:
        """Keep every file of W&B below the run folder, so that the folder can be moved whole.

        Its settings are only read, and stay where ``wandb login`` left them: they name the server.
        Its reports on itself are off: nobody asked for them, and with a server that hangs they hold
        Python's exit up for ten seconds.
        """
        own = {
            "WANDB_ERROR_REPORTING": os.environ.get("WANDB_ERROR_REPORTING", "false"),
            # Else login asks the server who is logged in, to say so.
            "WANDB_SILENT": "true",
            "WANDB_HTTP_TIMEOUT": os.environ.get("WANDB_HTTP_TIMEOUT", "2"),
        }
        for name in ("data", "cache"):
            path = self.folder / name
            path.mkdir(parents=True, exist_ok=True)
            own[f"WANDB_{name.upper()}_DIR"] = str(path)
        self.environment = {key: os.environ.get(key) for key in own}
        os.environ.update(own)

    def _attempt(self, action: Callable[[], None], *, fallback: bool = False) -> bool:
        """Whether ``action`` worked; if not, the mirror is off, unless there is a fallback."""
        try:
            action()
        # wandb raises CommError, UsageError, ConnectionResetError, OSError and more; a mirror that
        # lets one of them through would cost a run.
        except Exception as error:  # noqa: BLE001
            self.run = None
            _forget_the_service()
            if not fallback:
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(": ")
                self.say(f"W&B is off for the rest of this run: {reason}")
            return False
        return True


def closing_values(summary: Summary) -> dict[str, Any]:
    """The numbers of a summary as W&B takes them: ``test/val/accuracy`` is test by rule val."""
    values = {
        f"{split}/{rule}/{metric}": value
        for rule, result in summary.rules.items()
        for split, scalars in (("val", result.val), ("test", result.test))
        for metric, value in (scalars or {}).items()
        if value is not None
    }
    return {**values, "headline": summary.headline}


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
        killer = threading.Timer(seconds, _service().kill)
        killer.daemon = True
        killer.start()
    try:
        yield
    finally:
        if killer is not None:
            killer.cancel()


def _service() -> subprocess.Popen[bytes]:
    """wandb's background process, for which wandb has no public name."""
    from wandb.sdk import wandb_setup

    process: subprocess.Popen[bytes] = wandb_setup.singleton()._connection._proc._process  # type: ignore[union-attr]
    return process


@functools.cache
def _forget_the_service_at_exit() -> None:
    """Come before wandb's own end, which would wait for a service that hangs."""
    atexit.register(_forget_the_service)


def class_labels(names: Sequence[str]) -> list[str]:
    """``003_cat``: sorts by class number wherever keys are listed."""
    width = len(str(max(len(names) - 1, 1)))
    width = max(width, 3)
    return [f"{number:0{width}d}_{name}" for number, name in enumerate(names)]


def per_class_values(
    split: str,
    metrics: PerClass,
    *,
    names: Sequence[str],
    mode: PerClassMode,
) -> dict[str, Any]:
    """What one epoch sends to W&B about single classes.

    Args:
        split: ``val`` or ``test``.
        metrics: per-class scores.
        names: class names.
        mode: ``auto`` sends scalars up to 1,000 classes (precision and F1 up to 20) and a histogram
            of recalls beyond; ``table`` the histogram only; ``off`` nothing. A histogram is an
            array (C,), which :meth:`Mirror.log` knows how to send.
    """
    if mode == "off":
        return {}
    if mode == "scalars" or (mode == "auto" and len(names) <= SCALARS_AUTO):
        kinds = ["recall"]
        if len(names) <= SCALARS_WITH_PRECISION:
            kinds += ["precision", "f1"]
        return {
            f"{split}/{kind}/{label}": float(value)
            for kind in kinds
            for label, value in zip(class_labels(names), getattr(metrics, kind), strict=True)
        }
    return {f"{split}/recall_histogram": metrics.recall[np.isfinite(metrics.recall)]}


def without_lists(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl as W&B takes it: defined scalars only."""
    return {k: v for k, v in row.items() if v is not None and not isinstance(v, list)}
