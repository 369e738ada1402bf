"""An exponential moving average of the weights, whose memory grows with the steps behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3

SHARE = 9  # of the steps so far: the average remembers a ninth of them at most


def average_of(model: nn.Module, *, decay: float) -> ModelEmaV3:
    """Return timm's average of a model's weights and buffers, to be told the number of each step.

    At step t, from 1, the decay is min(``decay``, (t - 1) / (t + 8)). Without this warm-up the
    initial weights would keep a share of ``decay`` to the power of the steps: 0.6 after 500 steps
    at 0.999. The ramp is polynomial-decay averaging with eta = 8 (Shamir and Zhang 2013,
    "Stochastic Gradient Descent for Non-smooth Optimization: Convergence Results and Optimal
    Averaging Schemes", sec. 4), and TensorFlow's (1 + n) / (10 + n) at n = t - 2. It remembers a
    ninth of the steps so far, however many these are.

    Args:
        model: whose weights are averaged.
        decay: where the ramp ends.
    """
    from timm.utils import ModelEmaV3

    return ModelEmaV3(model, decay=decay, use_warmup=True, warmup_gamma=SHARE, warmup_power=1)


def remark(decay: float | None, *, num_steps: int) -> str | None:
    """Return what to say of a decay that the warm-up does not reach in ``num_steps`` steps."""
    if decay is None or decay <= (num_steps - 1) / (num_steps - 1 + SHARE):
        return None
    memory = 1 / (1 - decay)
    return (
        f"model.ema={decay:g}: would remember {memory:,.0f} steps, and is reached after "
        f"{SHARE * decay * memory:,.0f}; this run has {num_steps:,}, so that its average remembers "
        f"the last {num_steps / SHARE:,.0f}, as with any larger decay"
    )
