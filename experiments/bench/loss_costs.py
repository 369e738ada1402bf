"""Time and memory of one forward and backward pass of losses, measured in this process.

`experiments.bench.losses` starts it, once for each number of threads and allocator, with one word:
a JSON object with "threads", "rounds" and "cases", names from `losses.CASES`. It prints a line of
JSON after each round, and one with all costs after each case.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from experiments.bench import loss_ways, turns
from experiments.bench.losses import CASES

TURN_SECONDS = 0.03  # of the floor: long against the clock's resolution


def case_costs(name: str, *, rounds: int, after_round: Callable[[], None]) -> dict[str, Any]:
    """Measure all ways of one case."""
    case = CASES[name]
    batch = loss_ways.drawn(case.shape)
    make = loss_ways.softmax_ways if case.activation == "softmax" else loss_ways.sigmoid_ways
    ways = dict(loss_ways.steps(batch, make(batch)))
    memory = {}
    for way, step in ways.items():
        batch.logits.grad = None  # not to be given back while it is being measured
        memory[way] = peak_bytes(step) / batch.logits.nbytes
    turn = {way: loss_ways.turn(step) for way, step in ways.items()}
    floor = next(iter(turn.values()))(3)
    steps = max(1, math.ceil(TURN_SECONDS / floor.wall))
    costs = turns.measure(turn, rounds=rounds, steps=steps, after_round=after_round)
    found = {
        way: {
            "memory": memory[way],
            **{clock: turns.seconds(costs[way], clock).tolist() for clock in turns.Cost._fields},
        }
        for way in ways
    }
    return {"case": name, "steps": steps, "ways": found}


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


def main(spec: dict[str, Any]) -> None:
    """Measure the cases of `spec`, printing as it goes."""
    torch.set_num_threads(spec["threads"])
    for name in spec["cases"]:
        found = case_costs(name, rounds=spec["rounds"], after_round=lambda: print("{}", flush=True))
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
