"""Timing several ways of doing one thing, in turns, so that the machine's noise hits all alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch


class Cost(NamedTuple):
    """Seconds of one step."""

    wall: float
    cpu: float  # of this process, all its threads


Turn = Callable[[int], Cost]  # makes so many steps


def cost(run: Callable[[], None], *, steps: int, device: torch.device) -> Cost:
    """Measure the seconds a step of ``run``, which makes ``steps`` of them, device included."""
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    _wait(device)
    return Cost((time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps)


def measure(ways: Mapping[str, Turn], *, rounds: int, steps: int) -> dict[str, list[Cost]]:
    """Measure every way, round by round, after one round that does not count."""
    order = random.Random(0)
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for turn in ways.values():
        turn(steps)
    for _ in range(rounds):
        for name in order.sample(list(ways), len(ways)):
            costs[name].append(ways[name](steps))
    return costs


def seconds(costs: Sequence[Cost], clock: str) -> np.ndarray:
    """Return one clock's seconds a step, round by round."""
    return np.array([getattr(cost, clock) for cost in costs])


def table(costs: Mapping[str, list[Cost]], *, base: str) -> Iterator[str]:
    """Yield lines: median and quartiles over rounds, of a step and of its ratio to ``base``'s.

    A ratio is taken within a round, so that what lasts longer than a round cancels out.
    """
    yield f"{'':8}{'clock':6}{'ms a step':>10}{'quartiles':>20}{f'to {base}':>10}{'quartiles':>18}"
    for clock in Cost._fields:
        for name in costs:
            found = seconds(costs[name], clock)
            low, middle, high = np.quantile(1e3 * found, [0.25, 0.5, 0.75])
            first, ratio, third = np.quantile(
                found / seconds(costs[base], clock), [0.25, 0.5, 0.75]
            )
            yield (
                f"{name:8}{clock:6}{middle:10.1f}{f'{low:.1f} to {high:.1f}':>20}"
                f"{ratio:10.3f}{f'{first:.3f} to {third:.3f}':>18}"
            )


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
