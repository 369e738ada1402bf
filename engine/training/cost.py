"""What training costs on this machine: seconds, CPU and GPU seconds, memory, energy."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from engine.training.epoch_totals import Lap, Peaks
from engine.training.processes import Processes
from engine.training.summary import Cost

POWERCAP = Path("/sys/class/powercap")
MICRO, MILLI = 1e-6, 1e-3
KIB = 1024
# Of the fields of /proc/PID/stat after the name of the program: CPU ticks of a process by itself.
USER_TICKS, SYSTEM_TICKS = 11, 12
# Facts of an epoch's line of metrics.jsonl that add up to those of a run.
SUMS = {
    "images": "train/images",
    "forward": "train/forward",
    "backward": "train/backward",
    "seconds": "time/epoch_seconds",
    "cpu_seconds": "time/cpu_seconds",
    "gpu_seconds": "time/gpu_seconds",
    "energy": "time/energy",
}
PEAKS = {"memory": "time/memory", "gpu_memory": "time/gpu_memory"}


class Meter:
    """Measures laps of training, and the memory in use at its peak.

    Args:
        device: where the model is trained.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.processes = device, Processes.current()
        self._gpu = _gpu_counter(device)
        # The packages of a machine are counted once, by the first of its processes.
        is_first = os.environ.get("LOCAL_RANK", "0") == "0"
        self._packages = _packages() if device.type == "cpu" and is_first else ()
        self.start()

    def start(self) -> None:
        """Begin a lap here, and the peak anew: what was spent since the last one is nobody's."""
        _forget_peak()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._before = self._now()

    def lap(self) -> Lap:
        """Return what all processes have spent since the last call, or since :meth:`start`."""
        before, now = self._before, self._now()
        self._before = now
        seconds = now.seconds - before.seconds
        is_gpu = self.device.type == "cuda"
        energy = self._energy(before, now)
        of_all = self.processes.total(
            torch.tensor(
                [
                    max(now.cpu_seconds - before.cpu_seconds, 0.0),
                    seconds * is_gpu,
                    energy or 0.0,
                    energy is not None,
                ],
                dtype=torch.float64,
            )
        ).tolist()
        cpu_seconds, gpu_seconds, joules, num_counted = of_all
        return Lap(
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            gpu_seconds=gpu_seconds if is_gpu else None,
            energy=joules if num_counted else None,
        )

    def peaks(self) -> Peaks:
        """Return the bytes in use at the peak since :meth:`start`, of the process which had most.

        Memory of the system is all that the process holds; that of a GPU is what torch had
        allocated there for tensors.
        """
        gpu = 0
        if self.device.type == "cuda":
            gpu = torch.cuda.max_memory_allocated(self.device)
        return Peaks(*self.processes.largest(_peak_memory(), gpu))

    def _now(self) -> _Reading:
        return _Reading(
            seconds=time.perf_counter(),
            cpu_seconds=_cpu_seconds(),
            packages=tuple(_microjoules(package) for package in self._packages),
            gpu=None if self._gpu is None else self._gpu.millijoules(),
        )

    def _energy(self, before: _Reading, now: _Reading) -> float | None:
        """Return the joules between two readings; None where nothing counts."""
        if now.gpu is not None and before.gpu is not None:
            return (now.gpu - before.gpu) * MILLI
        if not self._packages:
            return None
        pairs = zip(before.packages, now.packages, self._packages, strict=True)
        return sum((later - earlier) % (p.largest + 1) * MICRO for earlier, later, p in pairs)


class _Reading(NamedTuple):
    """Where the counters of this machine stand; they only rise, and those of packages wrap."""

    seconds: float
    cpu_seconds: float
    packages: tuple[int, ...]
    gpu: int | None


def cost_of(rows: Sequence[Mapping[str, Any]], *, trained_parameters: int) -> Cost:
    """Return what a run has cost: sums and peaks over its epochs, whichever segment trained them.

    What a line lacks, as those of older code do, is unknown of the whole run.

    Args:
        rows: the lines of metrics.jsonl.
        trained_parameters: numbers that the optimizer changes.
    """
    found: dict[str, Any] = {}
    for name, key in {**SUMS, **PEAKS}.items():
        values = [row[key] for row in rows if row.get(key) is not None]
        is_known = bool(rows) and len(values) == len(rows)
        joined = max if name in PEAKS else sum
        found[name] = joined(values) if is_known else None
    return Cost(trained_parameters=trained_parameters, **found)


# --- CPU and memory ------------------------------------------------------------------------------


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its children, those that have ended included."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = sum(_ticks(child.pid) for child in multiprocessing.active_children())
    return time.process_time() + ended.ru_utime + ended.ru_stime + running


def _ticks(pid: int | None) -> float:
    """Return the CPU seconds of a process; 0 where the system does not say or it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    return (int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS])) / os.sysconf("SC_CLK_TCK")


def _forget_peak() -> None:
    """Let the peak of this process begin anew, so that a run is not given an earlier one's."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: the peak is then that of the process's whole life
        return


def _peak_memory() -> int:
    """Return the largest resident size of this process in bytes."""
    try:
        for line in Path("/proc/self/status").read_text("utf-8", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * KIB
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIB


# --- energy --------------------------------------------------------------------------------------


class _Package(NamedTuple):
    """A CPU package that counts its energy (RAPL), and where its counter wraps."""

    file: Path
    largest: int


def _packages() -> tuple[_Package, ...]:
    """Return the CPU packages whose counters this user may read; parts of them are left out."""
    found = []
    for zone in sorted(POWERCAP.glob("intel-rapl:*")):
        try:
            if not (zone / "name").read_text().startswith("package"):
                continue
            package = _Package(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text()))
            package.file.read_text()
        except (OSError, ValueError):
            continue
        found.append(package)
    return tuple(found)


def _microjoules(package: _Package) -> int:
    return int(package.file.read_text())


class _Gpu:
    """The energy counter of one GPU, by NVML."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    def millijoules(self) -> int:
        """Return what it has used since its driver was loaded."""
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))


def _gpu_counter(device: torch.device) -> _Gpu | None:
    """Return the counter of a GPU; None without one, without pynvml, or where it does not count."""
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = torch.cuda.get_device_properties(device).uuid
        gpu = _Gpu(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode()))
        gpu.millijoules()
    except Exception:  # noqa: BLE001 - an optional package on any driver: training goes on without
        return None
    return gpu
