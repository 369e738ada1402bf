"""Mean features of each class, summed up batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor


class ClassSums:
    """Sums of the features of each class's images, in double precision.

    Args:
        num_classes: C.

    Attributes:
        counts: (C,) images so far.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = torch.zeros(num_classes, dtype=torch.int64)
        self._sums: Tensor | None = None

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Add the features (N, D) of images with labels ``targets`` (N,)."""
        if self._sums is None:
            shape = (len(self.counts), features.shape[1])
            self._sums = torch.zeros(shape, dtype=torch.float64)
        self._sums.index_add_(0, targets, features.double())
        self.counts += targets.bincount(minlength=len(self.counts))

    def means(self, *, empty: float) -> Tensor:
        """Return the mean of each class, (C, D) float32; ``empty`` for a class without images.

        >>> sums = ClassSums(2)
        >>> sums.add(torch.tensor([[1.0, 3.0], [2.0, 5.0]]), torch.tensor([0, 0]))
        >>> sums.means(empty=0.0).tolist()
        [[1.5, 4.0], [0.0, 0.0]]
        """
        assert self._sums is not None, "no image has been added"
        means = self._sums / self.counts.clamp(min=1)[:, None]
        means[self.counts == 0] = empty
        return means.float()
