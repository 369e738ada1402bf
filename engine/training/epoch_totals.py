"""Sums over an epoch, which checkpoints keep, and the position in it after a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

PASSES = ("forward", "backward")


class Lap(NamedTuple):
    """What training has spent between two moments; None where nothing here measures it.

    Attributes:
        seconds: on the clock.
        cpu_seconds: of all processes, those that prepare images included.
        gpu_seconds: on the clock, once for each GPU.
        energy: joules: of the GPUs, or of the CPU packages of a run without one, whoever used them.
    """

    seconds: float
    cpu_seconds: float
    gpu_seconds: float | None
    energy: float | None


class Peaks(NamedTuple):
    """Bytes in use at the peak: of the system, and of a GPU."""

    memory: int
    gpu_memory: int


@dataclass
class EpochTotals:
    """Sums over the part of an epoch that is done; kept in checkpoints inside an epoch.

    ``forward`` and ``backward`` are passes of one image through a network, ``images`` those that
    were drawn. Memory is a peak and no sum. None is unknown: a checkpoint of older code lacks it.
    """

    loss: float = 0.0
    correct: float = 0.0
    images: int = 0
    steps: int = 0
    seconds: float = 0.0
    grad_norm: float = 0.0
    forward: int | None = 0
    backward: int | None = 0
    cpu_seconds: float | None = 0.0
    gpu_seconds: float | None = 0.0
    energy: float | None = 0.0
    memory: int | None = 0
    gpu_memory: int | None = 0

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> EpochTotals:
        """Return the sums that a checkpoint keeps; inside an epoch what it lacks is unknown."""
        lacking = {field.name for field in fields(cls)} - kept.keys() if kept["steps"] else ()
        return cls(**{**kept, **dict.fromkeys(lacking)})

    def spend(self, lap: Lap) -> None:
        """Add what was spent; the sum of anything unknown is unknown."""
        for name, value in lap._asdict().items():
            self._add(name, value)

    def pass_through(self, *, forward: int, backward: int) -> None:
        """Add passes of one image through a network."""
        self._add("forward", forward)
        self._add("backward", backward)

    def reach(self, peaks: Peaks) -> None:
        """Note the memory in use at the peak."""
        for name, value in peaks._asdict().items():
            before = getattr(self, name)
            setattr(self, name, None if before is None else max(before, value))

    def _add(self, name: str, value: float | None) -> None:
        before = getattr(self, name)
        setattr(self, name, None if value is None or before is None else before + value)

    def metrics(self) -> dict[str, float]:
        """Return means over the images seen: loss, accuracy (of unmixed labels), gradient norm."""
        return {
            "loss": self.loss / max(self.images, 1),
            "accuracy": self.correct / max(self.images, 1),
            "grad_norm": self.grad_norm / max(self.steps, 1),
        }

    def row(self, epoch: int, *, steps: int, rate: float) -> dict[str, Any]:
        """Return the beginning of the line of an epoch (0-based) of ``steps`` steps."""
        means = {f"train/{name}": value for name, value in self.metrics().items()}
        passes = {
            f"train/{name}": value
            for name in ("images", *PASSES)
            if (value := getattr(self, name)) is not None
        }
        line = {"epoch": epoch + 1, "step": (epoch + 1) * steps, "lr": rate}
        return {**line, **means, **passes}

    def timing(self) -> dict[str, float]:
        """Return what the machine has spent on the epoch, which is no part of a run's results."""
        speed = self.images / max(self.seconds, 1e-9)
        spent = {
            "cpu_seconds": self.cpu_seconds,
            "gpu_seconds": self.gpu_seconds,
            "energy": self.energy,
            "memory": self.memory or None,
            "gpu_memory": self.gpu_memory or None,
        }
        known = {f"time/{name}": value for name, value in spent.items() if value is not None}
        return {"time/epoch_seconds": self.seconds, "time/images_per_second": speed, **known}


class Step(NamedTuple):
    """Where training is after an optimizer step.

    Attributes:
        epoch: the epoch (0-based).
        step: steps of it that are done, of ``steps``.
        steps: steps an epoch.
        rate: learning rate of the step.
        totals: sums over the epoch; on an accelerator those of some steps ago.
    """

    epoch: int
    step: int
    steps: int
    rate: float
    totals: EpochTotals
