"""From a split to its predictions, their metrics and their file."""

from __future__ import annotations

import io
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from engine.training.files import write_bytes
from engine.training.logits import LogitFile
from engine.training.metrics import Limits, Metrics, evaluate
from engine.training.predict_loop import Predictions, predict
from engine.training.probabilities import PredictsProbabilities, Probabilities
from engine.training.runtime import autocast, in_eval_mode
from engine.training.summary import defined
from engine.training.train_loop import Trainer


class Split(Protocol):
    """A held-out split: as many images as ``len`` says."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...


class Loader(Protocol):
    """What serves the batches of a split."""

    def epoch(self, positions: Tensor, *, epoch: int) -> Iterator[Any]:
        """Yield the batches of these positions."""
        ...

    def close(self) -> None:
        """End the processes that make them."""
        ...


@dataclass(frozen=True)
class Assessment:
    """One pass over a split: stored predictions, their probabilities in blocks, metrics."""

    predictions: Predictions
    probabilities: Probabilities
    metrics: Metrics


class Evaluator:
    """Predicts the held-out splits of a run with the weights of the moment.

    Joined processes share the images of a split; all get the whole assessment.

    Args:
        trainer: whose evaluated weights predict.
        splits: the held-out splits by name, and the training images as ``train``.
        make_loader: called when a split is first predicted, with its name and with what to call
            between the batches of a pass that the loader itself needs.
        readout: its ``predict`` turns logits into probabilities.
        class_counts: (C,) training images.
        whole_counts: (C,) images of each class in the data set's whole training list: how frequent
            the classes are by nature, as far as can be known without looking at test labels.
        old_classes: labels that an earlier run learnt: test also gets their accuracy and that of
            the others.
        limits: of the groups many, medium and few.
        scratch: the folder of files of logits, while these are too many for the memory.
    """

    def __init__(
        self,
        trainer: Trainer,
        splits: Mapping[str, Split],
        *,
        make_loader: Callable[[str, Callable[[], None]], Loader],
        readout: PredictsProbabilities,
        class_counts: np.ndarray,
        whole_counts: np.ndarray,
        old_classes: Sequence[int] = (),
        limits: Limits,
        scratch: Path | None = None,
    ) -> None:
        self.trainer, self.splits, self.readout = trainer, splits, readout
        self.class_counts, self.whole_counts = class_counts, whole_counts
        self.old_classes, self.limits = old_classes, limits
        self._make_loader, self._scratch = make_loader, scratch
        self._loaders: dict[str, Loader] = {}
        self._files: weakref.WeakSet[LogitFile] = weakref.WeakSet()
        # What predicts in the place of the evaluated model, such as the same model compiled.
        self.forward: Callable[[Tensor], Any] | None = None

    @torch.no_grad()
    def rehearse(self, forward: Callable[[Tensor], Any], *, shape: Sequence[int]) -> None:
        """Call the evaluated model on black images (B, C, H, W); nothing is left of it."""
        trainer = self.trainer
        with in_eval_mode(trainer.evaluated), autocast(trainer.device, trainer.precision):
            forward(torch.zeros(*shape, device=trainer.device))

    def assess(
        self,
        split: str,
        *,
        after_batch: Callable[[], None],
        ranking: bool = False,
        threshold: float | None = None,
    ) -> Assessment:
        """Predict a split and compute its metrics.

        Args:
            split: ``val`` or ``test``.
            after_batch: called between batches.
            ranking: also AUROC and average precision.
            threshold: binary tasks: also F1 at this probability.

        Raises:
            KeyError: the run has no such split.
            NonFinitePredictionsError: the model has diverged.
        """
        trainer, num_images = self.trainer, len(self.splits[split])
        predictions = predict(
            trainer.evaluated,
            self._loader(split, after_batch=after_batch).epoch(
                trainer.processes.share(torch.arange(num_images)), epoch=0
            ),
            num_images=num_images,
            device=trainer.device,
            precision=trainer.precision,
            after_batch=after_batch,
            forward=self.forward,
            processes=trainer.processes,
            large_file=self._large_file(split),
        )
        if isinstance(predictions.logits, LogitFile):
            self._files.add(predictions.logits)
        found = Probabilities(predictions.logits, self.readout, is_single=trainer.num_outputs == 1)
        metrics = evaluate(
            found,
            predictions.targets,
            self.class_counts,
            old_classes=self.old_classes,
            ranking=ranking,
            threshold=threshold,
            limits=self.limits,
        )
        return Assessment(predictions, found, metrics)

    def features(self, split: str, *, after_batch: Callable[[], None]) -> Iterator[np.ndarray]:
        """Yield the features (n, D) float32 of a split's images, in its order.

        Joined processes share the images; all get all features.

        Args:
            split: ``val``, ``test`` or ``train``, whose images are taken as those of the others.
            after_batch: called between batches.
        """
        processes, num_images = self.trainer.processes, len(self.splits[split])
        model, device = self.trainer.evaluated, self.trainer.device
        positions, done = processes.share(torch.arange(num_images)), 0
        with in_eval_mode(model):
            for batch in self._loader(split, after_batch=after_batch).epoch(positions, epoch=0):
                with torch.no_grad(), autocast(device, self.trainer.precision):
                    share = model(batch.images).features.float()
                left = min(num_images - done, processes.world * len(share))
                joined = processes.joined_shares(share, num_rows=left).cpu().numpy()
                done += len(joined)
                yield joined
                after_batch()

    def close(self) -> None:
        """End the processes that prepare images, and remove the files that were not kept.

        Those of its own passes alone: the folder may be another process's.
        """
        for loader in self._loaders.values():
            loader.close()
        for file in self._files:
            file.close()

    def _large_file(self, split: str) -> Path | None:
        if self._scratch is None:
            return None
        return self._scratch / f".{split}.{self.trainer.processes.rank}.logits.tmp"

    def _loader(self, split: str, *, after_batch: Callable[[], None]) -> Loader:
        if split not in self._loaders:
            self._loaders[split] = self._make_loader(split, after_batch)
        return self._loaders[split]


def row_of(split: str, metrics: Metrics) -> dict[str, Any]:
    """Return a split's part of a line of metrics.jsonl: scalars, and the recall of each class."""
    recall = [defined(value) for value in metrics.per_class.recall]
    scalars = {f"{split}/{name}": value for name, value in metrics.scalars.items()}
    return {**scalars, f"{split}/recall": recall}


def save_predictions(
    path: Path,
    predictions: Predictions,
    *,
    pool_index: np.ndarray,
    groups: np.ndarray | None = None,
) -> None:
    """Write one pass as a compressed ``.npz``: logits (N, C), targets (N,), index (N,).

    Logits that were too many for the memory are beside it, in ``<name>.logits.npy``. ``index`` is
    the position of each image in the data set's own list, so that runs on different splits can be
    compared image by image. Where the data set knows which images belong together, ``groups`` (N,)
    has the number of each image's group.
    """
    buffer = io.BytesIO()
    known = {} if groups is None else {"groups": groups[predictions.index]}
    beside = path.with_suffix(".logits.npy")
    if isinstance(predictions.logits, LogitFile):
        predictions.logits.keep_as(beside)
    else:
        known["logits"] = predictions.logits
    np.savez_compressed(
        buffer,
        targets=predictions.targets,
        index=pool_index[predictions.index],
        **known,
    )
    write_bytes(path, buffer.getvalue())
