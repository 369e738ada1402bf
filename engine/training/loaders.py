"""What serves the batches of each split: images, or their features where these stay the same."""

from __future__ import annotations

from typing import Any

import data
import models
from engine.config import rules
from engine.config.schema import Config
from engine.training.build import augmentation
from engine.training.features import BATCH_SIZE, Features, FeatureStore
from engine.training.machine import Machine
from engine.training.runtime import derive_seed


class Loaders:
    """Makes the loaders of a run.

    Args:
        config: of the run.
        dataset: of the run.
        machine: what it is trained on.
        model: at the weights that it starts from.

    Attributes:
        held_out: the splits that are evaluated, by name.
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
        splits = {"val": dataset.val, "test": dataset.test}
        self.held_out = {name: split for name, split in splits.items() if split is not None}
        self.remarks: list[str] = []
        self._store: FeatureStore | None = None
        reason = rules.why_features_change(config)
        if not reason and config.runtime.cache_features is not False:
            self._store = FeatureStore(config, dataset, machine=machine, model=model)
        elif reason and rules.trains_the_head_alone(config):
            self.remarks.append(f"features are computed in every epoch: {reason}")

    def training(self, *, smallest_share: int) -> data.Loader | data.FeatureLoader:
        """Return the loader of the training split.

        Args:
            smallest_share: see :class:`data.Loader`.
        """
        processes = self.machine.processes
        loader = self._loader(
            "train",
            augment=augmentation(self.config),
            rank=processes.rank,
            world=processes.world,
            smallest_share=smallest_share,
        )
        return loader if self._store is None else self._serving(self._features("train"), loader)

    def evaluating(self, split: str) -> data.Loader | data.FeatureLoader:
        """Return the loader of a held-out split."""
        loader = self._loader(split)
        return loader if self._store is None else self._serving(self._features(split), loader)

    def _features(self, split: str) -> Features:
        assert self._store is not None
        augment, views = None, 1
        if split == "train" and augmentation(self.config):
            augment, views = augmentation(self.config), self.config.data.augment.views
        return self._store.features(
            split,
            lambda: self._loader(split, augment=augment, batch_size=BATCH_SIZE),
            views=views,
        )

    def _serving(self, features: Features, loader: data.Loader) -> data.FeatureLoader:
        self.remarks.append(features.sentence)
        return data.FeatureLoader(loader, features.table)

    def _loader(self, split: str, **options: Any) -> data.Loader:
        config, dataset = self.config, self.dataset
        return data.Loader(
            getattr(dataset, split),
            mean=dataset.mean,
            std=dataset.std,
            device=self.machine.device,
            seed=derive_seed(config.seed, "loader"),
            interpolation=getattr(config.data, "interpolation", "bilinear"),
            workers=config.runtime.workers,
            **{"batch_size": config.optim.batch_size, **options},
        )
