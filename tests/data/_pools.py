"""Pools for tests: small, of any class counts, every image told from every other by its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from data import Labelled, Pool


@dataclass(frozen=True)
class PoolOf:
    """A data set whose classes have given numbers of images, in shuffled order."""

    train: Sequence[int]
    test_per_class: int = 2
    val: Sequence[int] | None = None
    size: int = 4
    channels: int = 1
    class_names: tuple[str, ...] | None = None
    statistics: tuple[float, ...] | None = field(default=None)

    def load(self) -> Pool:
        names = self.class_names or tuple(f"c{label}" for label in range(len(self.train)))
        return Pool(
            train=self._part(self.train, seed=1),
            test=self._part([self.test_per_class] * len(self.train), seed=2),
            val=None if self.val is None else self._part(self.val, seed=3),
            class_names=names,
            title="Test set",
            mean=self.statistics,
            std=self.statistics,
        )

    def _part(self, counts: Sequence[int], *, seed: int) -> Labelled:
        generator = np.random.default_rng(seed)
        targets = generator.permutation(np.repeat(np.arange(len(counts)), counts))
        shape = (len(targets), self.channels, self.size, self.size)
        images = generator.integers(0, 256, shape, dtype=np.uint8)
        return Labelled(torch.from_numpy(images), torch.from_numpy(targets))
