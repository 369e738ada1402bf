"""MLflow: runs in a store of their own, a folder unless another is named."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from engine.report.tracking._base import Closing, TrackedRun, Tracker

EXPERIMENT = "tailfocus"
RUN_ID = "tailfocus.run_id"  # tag by which a resumed run is found again
HTTP_SECONDS = 2


class MLflow(Tracker):
    """MLflow, in a folder or on a server (requirements-mlflow.txt installs it).

    Args:
        uri: folder or server that keeps the runs; null: MLFLOW_TRACKING_URI, or else mlruns in
            track.root
        experiment: MLflow experiment; null: MLFLOW_EXPERIMENT_NAME, or else tailfocus
    """

    title: ClassVar[str] = "MLflow"
    package: ClassVar[str] = "mlflow"
    requirements: ClassVar[str] = "requirements-mlflow.txt"

    def __init__(
        self, run: TrackedRun, *, uri: str | None = None, experiment: str | None = None
    ) -> None:
        self.tracked = run
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or str(run.root / "mlruns")
        named = os.environ.get("MLFLOW_EXPERIMENT_NAME")
        self.experiment = experiment or named or EXPERIMENT
        self.client: Any = None
        self.id, self.last_step = "", 0

    def environment(self) -> Mapping[str, str]:
        """Report nothing on its use to anybody, allow a folder as store, and fail soon."""
        return {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "MLFLOW_ALLOW_FILE_STORE": "true",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(HTTP_SECONDS),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            # Drawn from Python's global generator, which belongs to the run.
            "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
        }

    def start(self) -> None:
        """Create the run, or find that of earlier segments."""
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=self.uri)
        experiment = self._experiment()
        found = self.client.search_runs(
            [experiment], f"tags.`{RUN_ID}` = '{self.tracked.run_id}'", max_results=1
        )
        if found:
            self.id = found[0].info.run_id
            self.client.set_terminated(self.id, status="RUNNING")
            self.last_step = int(found[0].data.metrics.get("epoch", 0))
            return
        tags = {RUN_ID: self.tracked.run_id, "group": self.tracked.group}
        made = self.client.create_run(experiment, run_name=self.tracked.name, tags=tags)
        self.id = made.info.run_id
        self._log_config()

    def log(self, values: Mapping[str, Any], *, step: int) -> None:
        """Record an epoch that is not there yet; a histogram becomes its quartiles."""
        if step > self.last_step:
            self._log_metrics(values, step=step)
            self.last_step = step

    def close(self, closing: Closing) -> None:
        """Record the closing numbers, the figures and the classes' rows."""
        words = {key: value for key, value in closing.values.items() if isinstance(value, str)}
        for key, value in words.items():
            self.client.set_tag(self.id, _name(key), value)
        numbers = {key: value for key, value in closing.values.items() if key not in words}
        self._log_metrics(numbers, step=self.last_step)
        for path in closing.images.values():
            self.client.log_artifact(self.id, str(path), "figures")
        if closing.classes:
            columns = {key: [row[key] for row in closing.classes] for key in closing.classes[0]}
            self.client.log_dict(self.id, columns, "test/classes.json")

    def finish(self, *, failed: bool) -> None:
        """End the run as finished or failed."""
        self.client.set_terminated(self.id, status="FAILED" if failed else "FINISHED")

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        if (found := self.client.get_experiment_by_name(self.experiment)) is None:
            try:
                return str(self.client.create_experiment(self.experiment))
            except MlflowException:  # another process made it in between
                found = self.client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _log_config(self) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)) for key, value in _leaves(self.tracked.config)]
        for first in range(0, len(params), 100):  # the most that one request may hold
            self.client.log_batch(self.id, params=params[first : first + 100])

    def _log_metrics(self, values: Mapping[str, Any], *, step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = []
        for key, value in values.items():
            if isinstance(value, np.ndarray):
                for quarter, quantile in enumerate(_quartiles(value)):
                    metrics.append(Metric(_name(f"{key}/q{quarter}"), quantile, now, step))
            elif isinstance(value, bool | int | float):
                metrics.append(Metric(_name(key), float(value), now, step))
        for first in range(0, len(metrics), 1000):
            self.client.log_batch(self.id, metrics=metrics[first : first + 1000])


def _quartiles(values: np.ndarray) -> list[float]:
    """Return minimum, quartiles and maximum; nothing for no values."""
    if not len(values):
        return []
    quantiles: list[float] = np.quantile(values, np.linspace(0, 1, 5)).tolist()
    return quantiles


def _name(key: str) -> str:
    """Return ``key`` as MLflow takes it: few characters, and a class name is no path.

    >>> _name("val/recall/003_a/grüne Katze")
    'val/recall/003_a_gr_ne Katze'
    """
    parts = re.sub(r"[^A-Za-z0-9_\-. :/]", "_", key).split("/", 2)
    return "/".join([*parts[:2], *(label.replace("/", "_") for label in parts[2:])])


def _leaves(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return dotted keys and values of a nested config."""
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        is_section = isinstance(value, Mapping) and bool(value)
        found += _leaves(value, f"{prefix}{key}.") if is_section else [(f"{prefix}{key}", value)]
    return found
