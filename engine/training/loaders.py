"""What serves the batches of each split: images, or their features where these stay the same."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

import data
import models
from engine.config import derived
from engine.config.schema import Config, OptimConfig
from engine.training.build import augmentation
from engine.training.frozen_features import BATCH_SIZE, Features, FeatureStore
from engine.training.machine import Machine
from engine.training.pieces import piece_sizes
from engine.training.runtime import derive_seed

EVALUATED_PIXELS = 2**16  # at once: 1,024 images of 8x8, and 64 of 32x32


class Loaders:
    """Makes the loaders of a run.

    Args:
        config: of the run.
        dataset: of the run.
        machine: what it is trained on.
        model: at the weights that it starts from.

    Attributes:
        splits: by name, those that are evaluated and ``train``.
        remarks: what a user should know before training.
    """

    def __init__(
        self,
        config: Config,
        dataset: data.LongTailed,
        *,
        machine: Machine,
        model: models.Classifier,
    ) -> None:
        self.config, self.dataset, self.machine = config, dataset, machine
        splits = {"val": dataset.val, "test": dataset.test, "train": dataset.train}
        self.splits = {name: split for name, split in splits.items() if split is not None}
        self.remarks: list[str] = []
        self._known: dict[tuple[str, int, bool], Features] = {}
        reason = derived.why_features_change(config)
        self._are_kept = derived.keeps_features(config)
        self._store = functools.cache(
            lambda: FeatureStore(config, dataset, machine=machine, model=model)
        )
        if reason and derived.trains_the_head_alone(config):
            self.remarks.append(f"features are computed in every epoch: {reason}")

    def images(self, *, smallest_share: int) -> data.Loader:
        """Return the loader of the images of the training split, whatever is kept of them.

        Args:
            smallest_share: see :class:`data.Loader`.
        """
        processes = self.machine.processes
        return self._loader(
            self.dataset.train,
            augment=augmentation(self.config),
            rank=processes.rank,
            world=processes.world,
            smallest_share=smallest_share,
        )

    def renewing(self) -> data.Loader:
        """Return a loader of the training images for statistics of batch normalisation.

        Its batches have two images for each process at least, also where training needs no two.
        """
        processes = self.machine.processes
        batch_size = evaluation_batch(self.config.optim, self.dataset)
        return self._loader(
            self.dataset.train,
            augment=augmentation(self.config),
            batch_size=max(batch_size, 2 * processes.world),
            rank=processes.rank,
            world=processes.world,
            smallest_share=2,
        )

    def training(self, *, smallest_share: int) -> data.Loader | data.FeatureLoader:
        """Return the loader of the training split.

        Args:
            smallest_share: see :class:`data.Loader`.
        """
        loader = self.images(smallest_share=smallest_share)
        if not self._are_kept:
            return loader
        augment = augmentation(self.config)
        return data.FeatureLoader(loader, self._features("train", augment=augment))

    def evaluating(
        self, split: str, after_batch: Callable[[], None]
    ) -> data.Loader | data.FeatureLoader:
        """Return the loader of a split whose images are taken as they are tested.

        Args:
            split: ``val``, ``test`` or ``train``.
            after_batch: called between batches where features are computed first; it may stop
                this by raising.
        """
        chosen: data.Split = getattr(self.dataset, split)
        tested = dataclasses.replace(chosen, files=None)
        world = self.machine.processes.world
        batch_size = evaluation_batch(self.config.optim, self.dataset, world=world)
        loader = self._loader(tested, batch_size=batch_size)
        # Features that are kept for training are of the images as they are trained on.
        if not self._are_kept or not _is_trained_as_tested(chosen):
            return loader
        return data.FeatureLoader(loader, self._features(split, after_batch=after_batch))

    def plain_features(self) -> Tensor:
        """Return the features (N, D) of the training images as tested, in the split's order."""
        found = self._features("train", as_tested=not _is_trained_as_tested(self.dataset.train))[0]
        if not self._are_kept:
            self._known.clear()
        return found

    def _features(
        self,
        split: str,
        *,
        augment: data.Augment | None = None,
        as_tested: bool = False,
        after_batch: Callable[[], None] | None = None,
    ) -> Tensor:
        """Return the features (views, N, D) of a split."""
        views = 0 if not augment else augment.views or 1
        key, chosen = (split, views, as_tested), getattr(self.dataset, split)
        if as_tested:
            chosen = dataclasses.replace(chosen, files=None)
        if key not in self._known:
            found = self._store().features(
                split,
                lambda: self._loader(chosen, augment=augment, batch_size=BATCH_SIZE),
                views=views,
                as_tested=as_tested,
                after_batch=after_batch,
            )
            self._known[key] = found
            self.remarks.append(found.sentence)
        return self._known[key].table

    def _loader(self, split: data.Split, **options: Any) -> data.Loader:
        config, dataset = self.config, self.dataset
        return data.Loader(
            split,
            mean=dataset.mean,
            std=dataset.std,
            device=self.machine.device,
            seed=derive_seed(config.seed, "loader"),
            interpolation=getattr(config.data, "interpolation", "bilinear"),
            workers=config.runtime.workers,
            **{"batch_size": config.optim.batch_size, **options},
        )


def _is_trained_as_tested(split: data.Split) -> bool:
    """Return whether training, where it changes nothing, takes the images that are tested."""
    return split.images is split.trained_on(whole=False)


def evaluation_batch(optim: OptimConfig, dataset: data.LongTailed, *, world: int = 1) -> int:
    """Return how many images are evaluated at once: more than in training where these are tiny.

    What a process trains on at once fits together with its gradients. A pass over digits takes half
    its time with more; the logits are the same.

    Args:
        optim: the batch of a step, and its pieces.
        dataset: has the sizes of images.
        world: processes that share the batch of a step.
    """
    shapes = (dataset.image_shape, dataset.test_shape)
    at_once = max(piece_sizes(-(-optim.batch_size // world), optim.accumulate))
    return max(at_once, EVALUATED_PIXELS // max(shape[1] * shape[2] for shape in shapes))
