"""What metrics take of each row of the probabilities, gathered block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.training.logits import row_blocks
from engine.training.metrics.calibration import Reliability, binned


class InBlocks(Protocol):
    """Probabilities (N, C) that need not be in memory together."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C)."""
        ...

    def blocks(self) -> Iterator[npt.NDArray[np.floating]]:
        """Yield consecutive rows, in order."""
        ...

    def whole(self) -> npt.NDArray[np.floating]:
        """Return all rows together."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayInBlocks:
    """An array (N, C) as :class:`InBlocks`."""

    array: npt.NDArray[np.floating]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C)."""
        return self.array.shape

    def blocks(self) -> Iterator[npt.NDArray[np.floating]]:
        """Yield views of consecutive rows."""
        for rows in row_blocks(*self.array.shape):
            yield self.array[rows]

    def whole(self) -> npt.NDArray[np.floating]:
        """Return the array."""
        return self.array


@dataclass(frozen=True, eq=False)
class RowScores:
    """N rows, without their C probabilities.

    Attributes:
        predictions: (N,) arg max, the lowest label on a tie.
        confidence: (N,) probability of it.
        of_true: (N,) probability of the true class.
        squares: (N,) sum of the squared probabilities, float64.
        num_ahead: (N,) classes that rank before the true one; equal probabilities rank by label.
        num_ties: rows whose largest probability two or more classes share.
        is_finite: whether every probability is.
        largest_error: how far a sum of a row is from one.
    """

    predictions: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.floating]
    of_true: npt.NDArray[np.floating]
    squares: npt.NDArray[np.float64]
    num_ahead: npt.NDArray[np.int64]
    num_ties: int
    is_finite: bool
    largest_error: float

    @classmethod
    def of(cls, probabilities: InBlocks, targets: npt.NDArray[np.integer]) -> RowScores:
        """Go through the rows once."""
        parts, start = [], 0
        for block in probabilities.blocks():
            parts.append(cls._of_block(block, targets[start : start + len(block)]))
            start += len(block)
        names = ("predictions", "confidence", "of_true", "squares", "num_ahead")
        return cls(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
            num_ties=sum(part.num_ties for part in parts),
            is_finite=all(part.is_finite for part in parts),
            largest_error=max(part.largest_error for part in parts),
        )

    def reliability(self, targets: npt.NDArray[np.integer]) -> Reliability:
        """Return confidence against accuracy, as :func:`calibration.reliability` does."""
        return binned(self.confidence, self.predictions == targets)

    @classmethod
    def _of_block(
        cls, block: npt.NDArray[np.floating], targets: npt.NDArray[np.integer]
    ) -> RowScores:
        predictions = block.argmax(axis=1)
        each, true = np.arange(len(block)), targets[:, None]
        confidence, of_true = block[each, predictions], block[each, targets]
        ahead = block > of_true[:, None]
        ahead |= (block == of_true[:, None]) & (np.arange(block.shape[1]) < true)
        ties = (block == block.max(axis=1, keepdims=True)).sum(axis=1) > 1
        # Minimum and maximum carry NaN and infinity without a temporary as large as the block.
        is_finite = bool(np.isfinite([block.min(), block.max()]).all())
        return cls(
            predictions=predictions,
            confidence=confidence,
            of_true=of_true,
            squares=np.einsum("nc,nc->n", block, block, dtype=np.float64),
            num_ahead=ahead.sum(axis=1),
            num_ties=int(ties.sum()),
            is_finite=is_finite,
            largest_error=float(np.abs(block.sum(axis=1) - 1).max()) if is_finite else 0.0,
        )
