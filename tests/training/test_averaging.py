"""The average of the weights: its ramp, what it counts, and what is said of a decay too large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engine.training.averaging import average_of, remark
from tests._runs import folder_of, small_run


def weights_after(steps: int, *, decay: float) -> tuple[float, list[float]]:
    """The average of a single weight after some steps, and the weight after each."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 1e6)  # an initial weight that would show
    average = average_of(model, decay=decay)
    seen = np.random.default_rng(0).normal(size=steps).tolist()
    for step, value in enumerate(seen, start=1):
        nn.init.constant_(model.weight, value)
        average.update(model, step=step)
    return average.module.weight.item(), seen


@pytest.mark.parametrize("steps", [1, 2, 30, 300])
@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_a_weighted_mean_of_the_steps_without_the_initial_weights(
    steps: int, decay: float
) -> None:
    found, seen = weights_after(steps, decay=decay)
    decays = [min(decay, (t - 1) / (t + 8)) for t in range(1, steps + 1)]
    shares = [(1 - decays[t]) * np.prod(decays[t + 1 :]) for t in range(steps)]
    assert sum(shares) == pytest.approx(1)
    assert found == pytest.approx(np.dot(shares, seen), abs=1e-9)


def test_a_decay_that_is_never_reached_gives_polynomial_weights() -> None:
    """Step s of t has a share in proportion to s (s+1) ... (s+7), Shamir and Zhang at eta 8."""
    found, seen = weights_after(40, decay=1 - 1e-9)
    rising = [np.prod(np.arange(s, s + 8, dtype=float)) for s in range(1, 41)]
    assert found == pytest.approx(np.dot(rising, seen) / sum(rising), rel=1e-6)


@pytest.mark.parametrize(("decay", "steps"), [(None, 10), (0.9, 83), (0.9, 500), (0.999, 9000)])
def test_a_decay_that_the_run_reaches_needs_no_word(decay: float | None, steps: int) -> None:
    assert remark(decay, num_steps=steps) is None


@pytest.mark.parametrize(("decay", "steps"), [(0.9, 81), (0.999, 8000)])
def test_a_decay_that_the_run_does_not_reach_is_said(decay: float, steps: int) -> None:
    assert remark(decay, num_steps=steps) is not None


def test_the_line_names_the_key_its_memory_and_that_of_the_run() -> None:
    line = remark(0.9999, num_steps=320)
    assert line == (
        "model.ema=0.9999: would remember 10,000 steps, and is reached after 89,991; this run has "
        "320, so that its average remembers the last 36, as with any larger decay"
    )


def test_two_decays_that_a_run_does_not_reach_give_the_same_average(tmp_path: Path) -> None:
    averages = []
    for decay in ("0.999", "0.9999"):
        words = (f"model.ema={decay}", "schedule.epochs=1")
        small_run(tmp_path, *words)
        state = torch.load(folder_of(tmp_path, *words) / "checkpoints/last.pt", weights_only=True)
        averages.append(state["ema"])
    assert all(torch.equal(averages[0][key], value) for key, value in averages[1].items())


def test_the_average_counts_optimizer_steps_not_pieces_of_a_batch(tmp_path: Path) -> None:
    """Group normalisation makes the pieces add up to the batch."""
    averages = []
    for pieces in (1, 4):
        words = ("model.ema=0.999", "model.norm=group", f"optim.accumulate={pieces}")
        small_run(tmp_path, *words, "schedule.epochs=1")
        folder = folder_of(tmp_path, *words, "schedule.epochs=1")
        state = torch.load(folder / "checkpoints/last.pt", weights_only=True)["ema"]
        averages.append(torch.cat([value.flatten().float() for value in state.values()]))
    # Sums are rounded in another order, which single weights amplify on some processors.
    assert (averages[1] - averages[0]).norm() < 3e-4 * averages[0].norm()


def test_a_short_run_is_not_held_back_by_its_average(tmp_path: Path) -> None:
    """The average is near the final weights, far from the initial ones."""
    words = ("data.one_vs_rest=2", "loss=sigmoid_focal", "mixup.mixup=0.4", "model.ema=0.9999")
    words = (*words, "track.keep_checkpoints=true")
    still = (*words, "optim.lr=1e-30", "optim.weight_decay=0")
    found = {}
    for each in (words, still):
        small_run(tmp_path, *each)
        path = folder_of(tmp_path, *each) / "checkpoints" / "last.pt"
        found[each] = torch.load(path, weights_only=True)
    key = "head.weight"
    final, initial = found[words]["model"][key], found[still]["model"][key]
    assert (found[words]["ema"][key] - final).norm() < 0.5 * (final - initial).norm()
