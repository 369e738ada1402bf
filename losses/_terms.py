"""What the loss of a sample is, as a function of its cross-entropy."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._modulator import minus_miss, power_of_miss

UNIT = 1.0  # the slope of a cross-entropy itself


class Sloped(NamedTuple):
    """Losses of samples, (N, ...), and their derivatives by the cross-entropy."""

    values: Tensor
    slope: Tensor | float | None  # None where nobody asked for it

    def times(self, factor: Tensor | float) -> Sloped:
        """Return both times what does not depend on the cross-entropy."""
        slope = self.slope
        if slope is not None:
            slope = factor if slope is UNIT else slope * factor
        return Sloped(self.values * factor, slope)


class SampleTerm(NamedTuple):
    """The loss of a sample as a function of its cross-entropy CE.

    With u = 1 - p and v = 1 - p^power it is ``gain factor (v^gamma CE + epsilon u^(gamma + 1))``,
    for samples with a size divided by ``2 u size + eps``, which is a constant to the gradient
    unless ``detach`` says otherwise.
    """

    gamma: float = 0.0
    epsilon: float = 0.0
    gain: float = 1.0
    eps: float = 0.0
    detach: bool = True

    def of(
        self,
        nll: Tensor,
        factor: Tensor | None = None,
        power: Tensor | None = None,
        size: Tensor | None = None,
        *,
        with_slope: bool = False,
    ) -> Sloped:
        """Return the losses of cross-entropies and of values of the samples, all (N, ...).

        Autograd has no need of the slope: only a gradient that is made with the value asks for it.
        """
        found = _focal(nll, power, gamma=self.gamma, with_slope=with_slope)
        if self.epsilon != 0:
            found = self._with_poly(found, nll)
        gain: Tensor | float = self.gain
        if size is not None:
            minus = minus_miss(nll.detach() if self.detach else nll)
            found = found.times(gain / (minus * size).mul_(-2).add_(self.eps))
            gain = UNIT
        found = found if factor is None else found.times(factor)
        return found if gain == 1 else found.times(gain)

    def _with_poly(self, focal: Sloped, nll: Tensor) -> Sloped:
        """Add epsilon u^(gamma + 1)."""
        minus, power = minus_miss(nll), self.gamma + 1
        slope = focal.slope
        if slope is not None:
            rate = self.epsilon * power * power_of_miss(minus, gamma=self.gamma)
            slope = rate.mul_(minus + 1).add_(slope)
        return Sloped(focal.values + self.epsilon * power_of_miss(minus, gamma=power), slope)


def _focal(nll: Tensor, power: Tensor | None, *, gamma: float, with_slope: bool) -> Sloped:
    """Return v^gamma CE; its slope is v^(gamma - 1) (v + gamma CE power p^power)."""
    if gamma == 0:
        return Sloped(nll, UNIT if with_slope else None)
    modulated = nll if power is None else power * nll
    minus = minus_miss(modulated)
    values = power_of_miss(minus, gamma=gamma) * nll
    if not with_slope:
        return Sloped(values, None)
    slope = torch.addcmul(minus, modulated, minus + 1, value=-gamma)
    return Sloped(
        values, slope.mul_(minus if gamma == 2 else -power_of_miss(minus, gamma=gamma - 1))
    )


CROSS_ENTROPY = SampleTerm()
