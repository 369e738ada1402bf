"""Sharpness-aware minimisation: where a step looks for its gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

SMALLEST = 1e-12  # of a gradient's norm, as in the authors' code


@contextlib.contextmanager
def ascended(
    model: nn.Module, parameters: Sequence[nn.Parameter], *, distance: float
) -> Iterator[None]:
    """Move weights by ``distance`` along their gradient inside the block, and back after it.

    The direction is that of the whole gradient g, w + rho g / |g| (Foret et al. 2021,
    "Sharpness-Aware Minimization for Efficiently Improving Generalization", eq. 2), whatever a
    float16 loss is scaled by. Where the gradient has overflowed nothing moves. The statistics of
    batch normalisation rest inside: they are those of the weights that are kept.

    Args:
        model: whose statistics rest.
        parameters: with their gradients; back at the very same bits afterwards.
        distance: rho.
    """
    moved = [p for p in parameters if p.grad is not None]
    gradients = [p.grad for p in moved if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    factor = torch.where(torch.isfinite(norm), distance / (norm + SMALLEST), 0.0)
    before = [p.detach().clone() for p in moved]
    with torch.no_grad():
        for parameter, gradient in zip(moved, gradients, strict=True):
            step = (gradient * factor.to(gradient.device)).nan_to_num(0.0, 0.0, 0.0)
            parameter.add_(step)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    tracked = [module.track_running_stats for module in norms]
    for module in norms:
        # A momentum of zero would still count the batch, and let 0 * NaN into the statistics.
        module.track_running_stats = False
    try:
        yield
    finally:
        for module, is_tracked in zip(norms, tracked, strict=True):
            module.track_running_stats = is_tracked
        with torch.no_grad():
            for parameter, value in zip(moved, before, strict=True):
                parameter.copy_(value)
