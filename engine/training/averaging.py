"""Averages of the weights: a moving one over steps, and the mean over epochs (SWA)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

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


class EpochMean:
    """The mean of the weights after each epoch from one on: stochastic weight averaging.

    Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization". The
    statistics of batch normalisation are no weights: see :func:`renew_statistics`.

    Args:
        model: whose weights are averaged; it is copied.
        first_epoch: the first epoch (0-based) whose weights count.
    """

    def __init__(self, model: nn.Module, *, first_epoch: int) -> None:
        self.first_epoch = first_epoch
        self._average = AveragedModel(model)
        # False while the statistics of batch normalisation are not yet those of the mean.
        self.is_renewed = True

    @property
    def module(self) -> nn.Module:
        """The averaged model."""
        module: nn.Module = self._average.module
        return module

    @property
    def number(self) -> int:
        """How many epochs are in the mean."""
        return int(self._average.n_averaged)

    @number.setter
    def number(self, number: int) -> None:
        self._average.n_averaged.fill_(number)

    def lacks(self, epoch: int) -> bool:
        """Return whether the weights after an epoch (0-based) are still to be added."""
        return self.number <= epoch - self.first_epoch

    def add(self, model: nn.Module) -> None:
        """Take the weights of the moment into the mean."""
        self._average.update_parameters(model)
        self.is_renewed = False


def renew_statistics(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    forward: Callable[[Tensor], object],
    with_frozen: bool = False,
) -> int:
    """Make the statistics of batch normalisation those of a model's own weights; leave it in eval.

    Unlike :func:`torch.optim.swa_utils.update_bn` it leaves dropout off, and those alone that rest
    in training too.

    Args:
        model: whose statistics are means over all images afterwards: each batch's count by how
            many it has.
        batches: images (N, C, H, W); not looked at where nothing is to be renewed.
        forward: takes the images through the model.
        with_frozen: renew those that rest in training as well.

    Returns:
        How many images went through it.
    """
    with _renewing(model, with_frozen=with_frozen) as norms, torch.no_grad():
        number = 0
        for images in batches if norms else ():
            number += len(images)
            for norm in norms:
                norm.momentum = len(images) / number
            forward(images)
    return number


@contextlib.contextmanager
def _renewing(model: nn.Module, *, with_frozen: bool) -> Iterator[Sequence[_BatchNorm]]:
    """Reset the statistics that training would move; yield their layers, which move them."""
    model.train()
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and module.track_running_stats
        and (module.training or with_frozen)
    ]
    model.eval()
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.training = True
    try:
        yield norms
    finally:
        for module, momentum in zip(norms, momenta, strict=True):
            module.momentum = momentum
        model.eval()
