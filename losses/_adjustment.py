"""What losses do to logits before the softmax."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ._counts import over_classes


class Adjustment(NamedTuple):
    """A factor and an offset of every class, and an offset of the true one alone."""

    scale: Tensor | float | None = None  # (C,), or of all classes
    offset: Tensor | None = None  # (C,), added after the scale
    own: Tensor | None = None  # (C,), of which the true class's is added, such as minus a margin

    def factor(self, logits: Tensor) -> Tensor | float:
        """Return the scale so that it multiplies logits (N, C, ...); there must be one."""
        assert self.scale is not None
        return over_classes(self.scale, logits) if isinstance(self.scale, Tensor) else self.scale

    def of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the adjusted logits, (N, C, ...); without ``own``, labels (N, ...) are unread."""
        adjusted = logits
        if self.scale is not None:
            adjusted = adjusted * self.factor(logits)
        if self.offset is not None:
            adjusted = adjusted + over_classes(self.offset, logits)
        if self.own is not None:
            own = _of_labels(self.own.to(logits), labels).unsqueeze(1)
            add = adjusted.scatter_add if adjusted is logits else adjusted.scatter_add_
            adjusted = add(1, labels.unsqueeze(1), own)
        return adjusted

    def into(self, out: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the same, without a gradient and in `out`, or the logits where nothing changes."""
        adjusted = logits
        if self.scale is not None:
            adjusted = torch.mul(adjusted, self.factor(logits), out=out)
        if self.offset is not None:
            adjusted = torch.add(adjusted, over_classes(self.offset, logits), out=out)
        if self.own is not None:
            adjusted = out if adjusted is out else out.copy_(logits)
            own = _of_labels(self.own.to(logits), labels).unsqueeze(1)
            adjusted.scatter_add_(1, labels.unsqueeze(1), own)
        return adjusted


def _of_labels(values: Tensor, labels: Tensor) -> Tensor:
    """Return the values (C,) of the classes that labels name, in their shape."""
    # Half the time of indexing.
    if labels.ndim == 1:
        return values.index_select(0, labels)
    return values.index_select(0, labels.flatten()).view_as(labels)


UNADJUSTED = Adjustment()
