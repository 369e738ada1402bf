"""Epochs as most scripts make them: torch's own parts, in float32, not compiled."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler

import data
from benchmarks.steps import WORKERS, Transformed

TESTED = 100  # images of a batch of test


class PlainLoop:
    """Trains and tests as the scripts of LDAM-DRW do (github.com/kaidic/LDAM-DRW, cifar_train.py).

    Images are held as torchvision's CIFAR10 holds them, as an array, and go through PIL and
    torchvision's transforms one by one, in worker processes that start anew in every epoch. After
    each step the loss and two accuracies are read, after each epoch all of the test split is
    predicted.

    Args:
        dataset: with images of every split in memory.
        model: images to ``(logits, features)``.
        optimizer: of all its parameters.
        batch_size: images of a step.
        crop: pixels of padding before a random crop.
        length: images an epoch draws; by default each once.
    """

    def __init__(
        self,
        dataset: data.LongTailed,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch_size: int,
        crop: int,
        length: int | None = None,
    ) -> None:
        from torchvision import transforms

        self.model, self.optimizer = model, optimizer
        ready = [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
        side = tuple(dataset.image_shape[1:])
        drawn = [transforms.RandomCrop(side, padding=crop), transforms.RandomHorizontalFlip()]
        train = _transformed(dataset.train, transforms.Compose([*drawn, *ready]))
        test = _transformed(dataset.test, transforms.Compose(ready))
        self._train = DataLoader(
            train,
            batch_size=batch_size,
            sampler=RandomSampler(train, num_samples=length or len(train)),
            num_workers=WORKERS,
        )
        self._test = DataLoader(
            test, batch_size=TESTED, sampler=SequentialSampler(test), num_workers=WORKERS
        )

    def epoch(self) -> None:
        """Train for an epoch, then test."""
        self.model.train()
        for images, targets in self._train:
            logits = self.model(images)[0]
            loss = F.cross_entropy(logits, targets)
            _read(logits, targets, loss)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.model.eval()
        predicted: list[int] = []
        with torch.no_grad():
            for images, targets in self._test:
                logits = self.model(images)[0]
                _read(logits, targets, F.cross_entropy(logits, targets))
                predicted.extend(logits.argmax(1).tolist())


def _transformed(split: data.Split, transform: Any) -> Transformed:
    assert isinstance(split.images, Tensor)
    images = split.images.permute(0, 2, 3, 1).contiguous().numpy()
    return Transformed(images, split.targets.tolist(), transform=transform)


def _read(logits: Tensor, targets: Tensor, loss: Tensor) -> tuple[float, list[float]]:
    """Return a batch's loss, and the share whose class is the first, among the first five."""
    with torch.no_grad():
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices == targets[:, None]
        return loss.item(), [best[:, :k].any(1).float().mean().item() for k in (1, 5)]
