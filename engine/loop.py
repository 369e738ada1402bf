"""The batch loops: one training epoch, and predictions over a split."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from engine.runtime import autocast, derive_seed, seed_global

CHECK_EVERY = 50  # optimizer steps between looks at the device's sums (each look waits for it)


class Batch(Protocol):
    """What a loader yields: images (N, C, H, W) float, targets (N,) int64, index (N,) int64."""

    @property
    def images(self) -> Tensor:
        """(N, C, H, W), normalised."""
        ...

    @property
    def targets(self) -> Tensor:
        """(N,) int64."""
        ...

    @property
    def index(self) -> Tensor:
        """(N,) int64, position of each image in its split."""
        ...


class Criterion(Protocol):
    """What the loop needs of a loss; see ``losses/_base.py``."""

    def __call__(self, logits: Tensor, targets: Tensor, *, features: Tensor) -> Tensor:
        """The loss of a batch, a scalar."""
        ...

    def predict(self, logits: Tensor) -> Tensor:
        """Class probabilities of logits."""
        ...

    def set_weight(self, weight: Tensor | None) -> None:
        """Use these class weights (C,) from now on."""
        ...

    def set_progress(self, epoch: int, epochs: int) -> None:
        """Say which epoch begins."""
        ...


class DivergenceError(RuntimeError):
    """Training has diverged: some number that matters is NaN or infinite."""


class NonFiniteLossError(DivergenceError):
    """The loss or its gradient became NaN or infinite.

    Attributes:
        epoch: epoch (0-based) in which it happened.
        step: optimizer step (0-based) of that epoch.
        classes: labels in that batch.
    """

    def __init__(self, epoch: int, step: int, classes: Sequence[int]) -> None:
        self.epoch, self.step, self.classes = epoch, step, tuple(classes)
        super().__init__(
            f"epoch {epoch + 1}, step {step + 1}: the loss or its gradient is not finite; classes "
            f"in the batch: {', '.join(map(str, classes))}"
        )


class NonFinitePredictionsError(DivergenceError):
    """The model's logits are NaN or infinite."""


class NonFiniteWeightsError(DivergenceError):
    """Some weights of the model are NaN or infinite."""


@dataclass
class EpochTotals:
    """Sums over the part of an epoch that is done; kept in checkpoints inside an epoch."""

    loss: float = 0.0
    correct: float = 0.0
    images: int = 0
    steps: int = 0
    seconds: float = 0.0
    grad_norm: float = 0.0

    def metrics(self) -> dict[str, float]:
        """Means over the images seen: loss, accuracy (of unmixed labels), gradient norm."""
        return {
            "loss": self.loss / max(self.images, 1),
            "accuracy": self.correct / max(self.images, 1),
            "grad_norm": self.grad_norm / max(self.steps, 1),
        }

    def timing(self) -> dict[str, float]:
        """Seconds of training and images a second, not part of a run's results."""
        speed = self.images / max(self.seconds, 1e-9)
        return {"time/epoch_seconds": self.seconds, "time/images_per_second": speed}


class Step(NamedTuple):
    """Told after every optimizer step: how far the epoch is, and sums as of the last look."""

    step: int
    totals: EpochTotals


class Trainer:
    """Model, loss and optimizer, and how one of them steps the other.

    Args:
        model: images to ``(logits, features)``.
        loss: see ``losses/_base.py``.
        optimizer: over the trainable parameters.
        rate: learning rate as a function of (epoch, step, steps an epoch).
        seed: base of the randomness of every step (dropout, mixup): a function of (seed, epoch,
            step) alone, so an interrupted epoch goes on as if nothing had happened.
        mix: timm's Mixup, or None.
        ema: timm's ModelEmaV3, or None.
        accumulate: pieces a batch is split into; the gradient is that of the whole batch.
        clip_norm: largest global gradient norm, or None.
        precision: of the model's arithmetic.
        compile_model: train through torch.compile.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Criterion,
        *,
        optimizer: torch.optim.Optimizer,
        rate: Callable[[int, int, int], float],
        seed: int,
        device: torch.device,
        mix: Any = None,
        ema: Any = None,
        accumulate: int = 1,
        clip_norm: float | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
        compile_model: bool = False,
    ) -> None:
        self.model, self.loss, self.optimizer, self.rate = model, loss, optimizer, rate
        self.seed, self.device, self.mix, self.ema = seed, device, mix, ema
        self.accumulate, self.clip_norm, self.precision = accumulate, clip_norm, precision
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.forward = torch.compile(model) if compile_model else model
        self._pending: list[_Pending] = []
        self._totals, self._epoch, self._clock = EpochTotals(), 0, 0.0

    @property
    def current_rate(self) -> float:
        """Learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def evaluated(self) -> nn.Module:
        """The weights that count: the averaged ones where there is an average."""
        module: nn.Module = self.model if self.ema is None else self.ema.module
        return module

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer state and averaged weights."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
        }

    def check_weights(self) -> None:
        """Look at every weight; a step may overflow them after a loss that was finite.

        Raises:
            NonFiniteWeightsError: names the first that is not finite.
        """
        for name, value in self.model.state_dict().items():
            if not torch.isfinite(value).all():
                raise NonFiniteWeightsError(
                    f"epoch {self._epoch + 1}, step {self._totals.steps}: {name} is not finite"
                )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])

    def train_epoch(
        self,
        batches: Iterable[Batch],
        *,
        epoch: int,
        steps: int,
        totals: EpochTotals,
        after_step: Callable[[Step], None] | None = None,
    ) -> EpochTotals:
        """Train on the batches that remain of an epoch of ``steps`` steps; updates ``totals``.

        Raises:
            NonFiniteLossError: found at the latest ``CHECK_EVERY`` steps after it happened on an
                accelerator, at once on the CPU.
        """
        self.model.train()
        self._begin(totals, epoch)
        check_every = 1 if self.device.type == "cpu" else CHECK_EVERY
        for batch in batches:
            step = totals.steps
            seed_global(derive_seed(self.seed, "step", epoch, step))
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(epoch, step, steps)
            self._pending.append(_Pending(step, batch.targets, self._step(batch)))
            totals.steps += 1
            if totals.steps % check_every == 0:
                self.settle()
            if after_step is not None:
                after_step(Step(totals.steps, totals))
        self.settle()
        return totals

    def settle(self) -> None:
        """Wait for the device and move what is pending into the epoch's totals.

        Raises:
            NonFiniteLossError: see :meth:`train_epoch`; a checkpoint must never be made then.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        sums = torch.stack([p.sums for p in pending]).double().cpu().numpy()
        for (step, targets, _), (loss, correct, norm) in zip(pending, sums, strict=True):
            if not (np.isfinite(loss) and np.isfinite(norm)):
                raise NonFiniteLossError(self._epoch, step, sorted(set(targets.tolist())))
            self._totals.loss += float(loss)
            self._totals.correct += float(correct)
            self._totals.grad_norm += float(norm)
            self._totals.images += len(targets)
        now = time.perf_counter()
        self._totals.seconds += now - self._clock
        self._clock = now

    def _begin(self, totals: EpochTotals, epoch: int) -> None:
        self._totals, self._epoch, self._clock = totals, epoch, time.perf_counter()

    def _step(self, batch: Batch) -> Tensor:
        """One optimizer step; returns (3,): summed loss, correct images, gradient norm."""
        images, targets = batch.images, batch.targets
        labels = targets
        if self.mix is not None:
            images, targets = mixed(self.mix, images, targets)
        self.optimizer.zero_grad(set_to_none=True)
        total_loss = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device)
        pieces = zip(
            images.chunk(self.accumulate),
            targets.chunk(self.accumulate),
            labels.chunk(self.accumulate),
            strict=True,
        )
        for image_piece, target_piece, label_piece in pieces:
            with autocast(self.device, self.precision):
                logits, features = self.forward(image_piece)
            if logits.shape[1] == 1 and target_piece.ndim == 2:
                target_piece = target_piece[:, 1:]
            loss = self.loss(logits, target_piece, features=features)
            share = len(image_piece) / len(images)
            (loss * share if self.accumulate > 1 else loss).backward()
            total_loss += loss.detach() * len(image_piece)
            correct += (decided(logits.detach()) == label_piece).sum()
        return torch.stack([total_loss, correct, self._update()])

    def _update(self) -> Tensor:
        norm = torch.nn.utils.get_total_norm(
            [p.grad for p in self.parameters if p.grad is not None]
        )
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.model)
        return norm.detach()


class _Pending(NamedTuple):
    """A step whose sums nobody has looked at yet; they stay on the device until then."""

    step: int
    targets: Tensor
    sums: Tensor


def decided(logits: Tensor) -> Tensor:
    """Predicted classes (N,) of logits (N, C), or of one logit a sample (N, 1)."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


def mixed(mix: Any, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """timm's Mixup on a batch; the last image of an odd batch stays as it is (timm wants pairs)."""
    even = len(images) // 2 * 2
    lone = torch.nn.functional.one_hot(targets[even:], mix.num_classes).to(images.dtype)
    if even == 0:
        return images, lone
    mixed_images, mixed_targets = mix(images[:even].clone(), targets[:even])
    return (
        torch.cat([mixed_images, images[even:]]),
        torch.cat([mixed_targets.to(images.dtype), lone]),
    )


@dataclass(frozen=True)
class Predictions:
    """One pass over a split: logits (N, C) float32, targets (N,), index (N,) of the images."""

    logits: np.ndarray
    targets: np.ndarray
    index: np.ndarray


@torch.no_grad()
def predict(
    model: nn.Module,
    batches: Iterator[Any],
    *,
    device: torch.device,
    precision: Literal["float32", "bfloat16"] = "float32",
    after_batch: Callable[[], None] | None = None,
) -> Predictions:
    """Run the model in eval mode; one logit x a sample is stored as the two logits (0, x).

    Raises:
        NonFinitePredictionsError: some logits are not finite.
    """
    was_training = model.training
    model.eval()
    logits, targets, index = [], [], []
    for batch in batches:
        with autocast(device, precision):
            output = model(batch.images)[0].float()
        if output.shape[1] == 1:
            output = torch.cat([torch.zeros_like(output), output], dim=1)
        logits.append(output.cpu())
        targets.append(batch.targets.cpu())
        index.append(batch.index.cpu())
        if after_batch is not None:
            after_batch()
    model.train(was_training)
    found = Predictions(*(torch.cat(part).numpy() for part in (logits, targets, index)))
    if not np.isfinite(found.logits).all():
        raise NonFinitePredictionsError("the model's outputs are not finite")
    return found
