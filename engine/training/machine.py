"""Where a run computes, and how: its processes, its device, its precision, its threads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from engine.config.mistakes import ConfigError
from engine.config.schema import RuntimeConfig
from engine.training.processes import Processes
from engine.training.runtime import (
    Precision,
    choose_device,
    choose_precision,
    cpu_threads,
    determinism,
    precision_note,
    preserved_randomness,
)


@dataclass(frozen=True)
class Machine:
    """What this process computes with.

    Attributes:
        processes: those that share the run.
        device: of this process.
        precision: of the model's arithmetic.
        threads: CPU threads of torch.
    """

    processes: Processes
    device: torch.device
    precision: Precision
    threads: int


@contextlib.contextmanager
def machine(
    runtime: RuntimeConfig, *, say: Callable[[str], None] | None = None
) -> Iterator[Machine]:
    """Set threads and determinism inside the block, and leave global generators as they were.

    Args:
        runtime: of the run's config.
        say: called with a line on the precision, where a user should know of it.

    Raises:
        ConfigError: the device is not there, or cannot do what is asked.
    """
    with (
        preserved_randomness(),
        cpu_threads(runtime.threads) as threads,
        determinism(is_on=runtime.deterministic),
    ):
        device = choose_device(runtime.device)
        processes = Processes.current()
        if runtime.compile == "cuda_graphs" and (device.type != "cuda" or processes.world > 1):
            raise ConfigError(
                [
                    "runtime.compile=cuda_graphs: for one process on a CUDA device, here "
                    f"{processes.world} on {device.type}; use runtime.compile=true"
                ]
            )
        precision = choose_precision(runtime.precision, device)
        note = precision_note(precision, device)
        if note is not None and say is not None:
            say(note)
        yield Machine(processes, device, precision, threads)
