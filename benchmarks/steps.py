"""Ways to make one step: bare, as train.py makes it, and as most scripts feed it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import data
from benchmarks import timing
from engine.config.schema import Config
from engine.training import build, compiling
from engine.training.checkpointer import Checkpointer, CheckpointOptions, Progress
from engine.training.epoch_totals import EpochTotals
from engine.training.runtime import autocast
from engine.training.signals import Interruption
from engine.training.train_loop import Trainer
from models import Output

WORKERS = 2
PREFETCHED = 2 * WORKERS  # batches that DataLoader's workers hold ready


class Idle(nn.Module):
    """Stands in for a model: each of its parameters gets a gradient, and no image is looked at."""

    def __init__(self, model: nn.Module, *, num_outputs: int) -> None:
        super().__init__()
        self.model, self.num_outputs = model, num_outputs

    def forward(self, images: Tensor) -> Output:
        """Return logits that are all the same, and the features (N, 1) that are their cause."""
        total = torch.stack([p.sum() for p in self.model.parameters()]).sum()
        features = total.expand(len(images), 1)
        return Output(features.expand(-1, self.num_outputs), features)


class Bench(NamedTuple):
    """What every way needs; an idle one has no arithmetic in its model."""

    config: Config
    dataset: data.LongTailed
    device: torch.device
    is_idle: bool = False

    def images(self) -> Tensor:
        """Return the training images, uint8 (N, C, H, W)."""
        images = self.dataset.train.images
        assert isinstance(images, Tensor)
        return images

    def loader(self) -> data.Loader:
        """Return the loader that train.py uses."""
        return data.Loader(
            self.dataset.train,
            batch_size=self.config.optim.batch_size,
            mean=self.dataset.mean,
            std=self.dataset.std,
            device=self.device,
            seed=0,
            augment=build.augmentation(self.config),
        )

    def trainer(self) -> Trainer:
        """Return a trainer as train.py builds it, with its own model and optimizer."""
        trainer = build.build_trainer(self.config, self.dataset, device=self.device)
        if self.is_idle:
            num_outputs = build.num_outputs(self.config, self.dataset.num_classes)
            trainer.model = trainer.forward = Idle(trainer.model, num_outputs=num_outputs)
        elif self.config.runtime.compile:
            shape = (self.config.optim.batch_size, *self.images().shape[1:])
            trainer.forward = compiling.ForOneShape(trainer.model, shape)
            with compiling.settings(self.device):
                trainer.rehearse(trainer.forward, shape=shape)
        return trainer

    def in_float32(self) -> Bench:
        """Return the same in float32 and not compiled, as most scripts are."""
        plain = self.config.runtime.model_copy(update={"precision": "float32", "compile": False})
        return self._replace(config=self.config.model_copy(update={"runtime": plain}))

    def bare_step(self) -> Callable[[Tensor, Tensor], None]:
        """Return a training step with nothing around it."""
        trainer = self.trainer()
        trainer.model.train()
        optimizer = trainer.optimizer

        def step(images: Tensor, targets: Tensor) -> None:
            optimizer.zero_grad(set_to_none=True)
            with autocast(self.device, trainer.precision):
                logits = trainer.forward(images)[0]
            F.cross_entropy(logits, targets).backward()
            optimizer.step()

        return step


def bare(bench: Bench) -> timing.Turn:
    """Step on one batch that is ready."""
    step = bench.bare_step()
    batch = next(bench.loader().epoch(torch.arange(bench.config.optim.batch_size), epoch=0))

    def run(steps: int) -> None:
        for _ in range(steps):
            step(batch.images, batch.targets)

    return lambda steps: timing.cost(lambda: run(steps), steps=steps, device=bench.device)


def whole(bench: Bench, folder: Path) -> timing.Turn:
    """Step as train.py does; a turn is a short epoch, its beginning and its end included."""
    trainer, loader = bench.trainer(), bench.loader()
    checkpoints = Checkpointer(
        folder,
        trainer,
        progress=Progress(),
        interruption=Interruption(),
        options=CheckpointOptions.of(bench.config),
    )
    order = torch.Generator().manual_seed(0)
    epochs = itertools.count()

    def run(steps: int) -> None:
        positions = torch.randint(
            len(bench.dataset.train), (steps * loader.batch_size,), generator=order
        )
        trainer.train_epoch(
            loader.epoch(positions, epoch=next(epochs)),
            epoch=0,
            steps=steps,
            totals=EpochTotals(),
            after_step=lambda _: checkpoints.poll(),
        )

    return lambda steps: timing.cost(lambda: run(steps), steps=steps, device=bench.device)


class Transformed(Dataset[tuple[Tensor, int]]):
    """Images (N, H, W, C) that a transform takes one at a time, as torchvision's CIFAR10 does."""

    def __init__(self, images: np.ndarray, targets: list[int], *, transform: Any) -> None:
        self.images, self.targets, self.transform = images, targets, transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[position])), self.targets[position]


def worker_loader(bench: Bench) -> DataLoader[tuple[Tensor, int]]:
    """Return the images as torchvision crops, flips and normalises them in worker processes."""
    from torchvision import transforms

    transform = transforms.Compose(
        [
            transforms.RandomCrop(bench.images().shape[2:], padding=bench.config.data.augment.crop),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(bench.dataset.mean, bench.dataset.std),
        ]
    )
    images = bench.images().permute(0, 2, 3, 1).contiguous().numpy()
    return DataLoader(
        Transformed(images, bench.dataset.train.targets.tolist(), transform=transform),
        batch_size=bench.config.optim.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        pin_memory=bench.device.type == "cuda",
    )


def usual(bench: Bench) -> timing.Turn:
    """Step in float32 on what worker processes make; they start and stop off the clock."""
    bench = bench.in_float32()
    step, loader = bench.bare_step(), worker_loader(bench)

    def run(batches: Iterator[list[Tensor]], steps: int) -> None:
        for batch in itertools.islice(batches, steps):
            images, targets = (part.to(bench.device, non_blocking=True) for part in batch)
            step(images, targets)

    def turn(steps: int) -> timing.Cost:
        batches = itertools.chain.from_iterable(itertools.repeat(loader))
        run(batches, PREFETCHED)  # ready before the clock starts, so not to be counted
        return timing.cost(lambda: run(batches, steps), steps=steps, device=bench.device)

    return turn
