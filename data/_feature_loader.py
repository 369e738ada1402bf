"""The loader of features: the batches of another loader, with what a frozen backbone gave."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from data._loader import Batch, Loader


class FeatureLoader:
    """Serves features in the place of the images that a loader would serve.

    The batches are those of the loader: the same rows in the same order for each process, and of an
    augmented image the features of the view that it would be.

    Args:
        loader: Whose batches they are.
        features: float32 (views, N, D), of every view of the N images of its split.
    """

    def __init__(self, loader: Loader, features: Tensor) -> None:
        self._loader, self._features = loader, features

    def close(self) -> None:
        """End the worker processes of the loader."""
        self._loader.close()

    def num_batches(self, num_positions: int) -> int:
        """Return how many batches an epoch of ``num_positions`` has."""
        return self._loader.num_batches(num_positions)

    def batch_sizes(self, num_positions: int) -> list[int]:
        """Return how many images each batch of an epoch of ``num_positions`` has."""
        return self._loader.batch_sizes(num_positions)

    def epoch(self, positions: Tensor, *, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch; ``images`` are features (B, D).

        Args:
            positions: (M,) int64, positions in the split, in the order they are served.
            epoch: Number of the epoch, by which views are taken in turn.
            start: Batches that are done already.
        """
        loader, num_images = self._loader, self._features.shape[1]
        table = self._features.flatten(0, 1)
        rows = loader.draws(positions, epoch=epoch) * num_images + positions
        sizes = loader.batch_sizes(len(positions))
        whole = rows.split(sizes)[start:]
        for share, own in zip(whole, loader.own(whole), strict=True):
            features = table.index_select(0, own.to(table.device))
            index = (own % num_images).to(loader.device)
            is_spare = len(share) <= loader.rank
            yield Batch(features.to(loader.device), loader.targets[index], index, is_spare)
