"""Time and memory of losses, each measured in a fresh process beside the floor alone.

`benchmarks.losses` starts it, once for each number of threads and each allocator, with one
word: a JSON object with "threads", "rounds", "device" and "cases", names from `losses.CASES`. It
prints one line of JSON for each way of each case.

A process of its own, because the default allocator learns: what a process has freed decides from
which size on memory is given back to the system, so that a way would pay, or be spared, for what
other ways did before it.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import loss_ways, timing
from benchmarks.losses import CASES

TURN_SECONDS = 0.03  # of the floor: long against the clock's resolution


class Task(NamedTuple):
    """One way of one case."""

    case: str
    way: str
    threads: int
    rounds: int
    device: str


def measure(task: Task) -> dict[str, Any]:
    """Let a way and the floor of its case take turns; return what a line of JSON holds."""
    torch.set_num_threads(task.threads)
    device = torch.device(task.device)
    batch = loss_ways.drawn(CASES[task.case].shape, device)
    ways = loss_ways.ways(CASES[task.case], batch)
    floor = next(iter(ways))
    steps = {name: loss_ways.step(batch, ways[name]) for name in (floor, task.way)}
    peak = peak_bytes if device.type == "cpu" else peak_device_bytes
    memory = peak(steps[task.way]) / batch.logits.nbytes
    taken = {name: loss_ways.turn(step, device) for name, step in steps.items()}
    count = max(1, math.ceil(TURN_SECONDS / taken[floor](3).wall))
    costs = timing.measure(taken, rounds=task.rounds, steps=count)
    seconds = {
        clock: {
            "floor": timing.seconds(costs[floor], clock).tolist(),
            "way": timing.seconds(costs[task.way], clock).tolist(),
        }
        for clock in timing.Cost._fields
    }
    return {
        "case": task.case,
        "way": task.way,
        "steps": count,
        "memory": memory,
        "is_by_kernel": loss_ways.is_by_kernel(ways[task.way](batch.logits)),
        **seconds,
    }


def peak_bytes(run: Callable[[], None]) -> int:
    """Return by how much the memory of PyTorch's CPU tensors grew at most while ``run`` ran."""
    activity = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    held = peak = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def peak_device_bytes(run: Callable[[], None]) -> int:
    """Return by how much the memory of tensors on the accelerator grew at most while it ran."""
    run()  # the gradient of the last pass is freed first, as in :func:`peak_bytes`
    torch.accelerator.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.accelerator.synchronize()
    return torch.cuda.max_memory_allocated() - before


def tasks(spec: dict[str, Any]) -> Iterator[Task]:
    """Yield every way of every case of `spec`."""
    for name in spec["cases"]:
        case = CASES[name]
        small = loss_ways.drawn((2, 2, *[1] * (len(case.shape) - 2)), torch.device("cpu"))
        for way in loss_ways.ways(case, small):
            yield Task(name, way, spec["threads"], spec["rounds"], spec["device"])


def main(spec: dict[str, Any]) -> None:
    """Measure what `spec` asks for, printing as it goes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([loss_ways.__name__])
    with context.Pool(1, maxtasksperchild=1) as pool:
        for found in pool.imap(measure, tasks(spec)):
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
