"""The batch loop of training: one epoch, step by step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine.training.divergence import NonFiniteLossError, NonFiniteWeightsError
from engine.training.processes import Processes
from engine.training.runtime import Precision, autocast, derive_seed, seed_global

SMALLEST_SCALE = 2.0**-10  # of a float16 loss; gradients that overflow even then have diverged
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

    @property
    def is_spare(self) -> bool:
        """Whether another process has these images too, and they do not count here."""
        ...


class Criterion(Protocol):
    """What the loop needs of a loss; see ``losses/_base.py``."""

    def __call__(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor,
        teacher_logits: Tensor | None,
    ) -> Tensor:
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

    def normalizer(self, targets: Tensor, *, num_outputs: int) -> Tensor:
        """How much of a batch counts; adds up over its parts."""
        ...

    def divisor(self, normalizer: Tensor) -> Tensor:
        """What the mean over that much divides by."""
        ...


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
        mix: timm's Mixup, or None. It pairs the images that one process has.
        ema: timm's ModelEmaV3, or None.
        accumulate: pieces a batch is split into; the gradient is that of the whole batch.
        clip_norm: largest global gradient norm, or None.
        precision: of the model's arithmetic.
        compile_model: train through torch.compile.

    Joined processes share every batch; losses and gradients are those of the whole batch.

    Attributes:
        teacher: a frozen model in eval mode, or None at first; the loss is given its logits for the
            very images of each batch. It is no part of checkpoints.
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
        precision: Precision = "float32",
        compile_model: bool = False,
    ) -> None:
        self.model, self.loss, self.optimizer, self.rate = model, loss, optimizer, rate
        self.seed, self.device, self.mix, self.ema = seed, device, mix, ema
        self.teacher: nn.Module | None = None
        self.accumulate, self.clip_norm, self.precision = accumulate, clip_norm, precision
        self.processes = Processes.current()
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # Unscaled, float16 gradients of a mean over a batch would be flushed to zero.
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
        self._shared_model = self.processes.sharing_gradients(model)
        self.forward = torch.compile(self._shared_model) if compile_model else self._shared_model
        # Not mixup's or dropout's draws of another process.
        self._own_seed = (self.processes.rank,) if self.processes.rank else ()
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
            "scaler": self.scaler.state_dict(),
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
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])

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
            seed_global(derive_seed(self.seed, "step", epoch, step, *self._own_seed))
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(epoch, step, steps)
            self._pending.append(_Pending(step, batch.targets, self._step(batch)))
            totals.steps += 1
            if totals.steps % check_every == 0:
                self.settle()
            if after_step is not None:
                after_step(Step(totals.steps, totals))
        self.settle()
        self.processes.copy_buffers(self.model, *([] if self.ema is None else [self.ema.module]))
        return totals

    def settle(self) -> None:
        """Wait for the device and move what is pending into the epoch's totals.

        Raises:
            NonFiniteLossError: see :meth:`train_epoch`; a checkpoint must never be made then.
        """
        pending, self._pending = self._pending, []
        if not pending:
            return
        sums = torch.stack([p.sums for p in pending]).double()
        sums = torch.cat([self.processes.total(sums[:, :3]), sums[:, 3:]], dim=1)
        rows = sums.cpu().numpy()
        for (step, targets, _), (loss, correct, images, norm) in zip(pending, rows, strict=True):
            # Too large a scale shows in the gradients; the scaler has then left the step out.
            is_skipped = (
                self.scaler.is_enabled()
                and not np.isfinite(norm)
                and self.scaler.get_scale() > SMALLEST_SCALE
            )
            if not np.isfinite(loss) or not (np.isfinite(norm) or is_skipped):
                classes = {
                    label for of in self.processes.gathered(targets.tolist()) for label in of
                }
                raise NonFiniteLossError(self._epoch, step, sorted(classes))
            self._totals.loss += float(loss)
            self._totals.correct += float(correct)
            self._totals.grad_norm += 0.0 if is_skipped else float(norm)
            self._totals.images += round(images)
        now = time.perf_counter()
        self._totals.seconds += now - self._clock
        self._clock = now

    def _begin(self, totals: EpochTotals, epoch: int) -> None:
        self._totals, self._epoch, self._clock = totals, epoch, time.perf_counter()

    def _step(self, batch: Batch) -> Tensor:
        """One optimizer step; returns (4,): summed loss, correct images, images, gradient norm.

        The first three are this process's share.
        """
        images, targets = batch.images, batch.targets
        labels = targets
        if self.mix is not None:
            images, targets = mixed(self.mix, images, targets)
        self.optimizer.zero_grad(set_to_none=True)
        total_loss = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device)
        sizes = piece_sizes(len(images), self.accumulate)
        image_pieces = images.split(sizes)
        target_pieces: Sequence[Tensor] = targets.split(sizes)
        label_pieces = labels.split(sizes)
        shares = None
        for i, (image_piece, label_piece) in enumerate(
            zip(image_pieces, label_pieces, strict=True)
        ):
            is_last = i == len(image_pieces) - 1
            with contextlib.nullcontext() if is_last else self._gradients_kept():
                with autocast(self.device, self.precision):
                    logits, features = self.forward(image_piece)
                if shares is None:
                    target_pieces = _of_outputs(target_pieces, logits)
                    shares = self._shares(
                        target_pieces, num_outputs=logits.shape[1], is_spare=batch.is_spare
                    )
                loss = self.loss(
                    logits,
                    target_pieces[i],
                    features=features,
                    teacher_logits=self._said_by_the_teacher(image_piece),
                )
                if shares:
                    loss = loss * shares[i]
                self.scaler.scale(self.processes.for_gradients(loss)).backward()
            total_loss += loss.detach()
            if not batch.is_spare:
                correct += (decided(logits.detach()) == label_piece).sum()
        # Filled in there: a copy from here would wait for the device.
        count = torch.full((), 0.0 if batch.is_spare else float(len(labels)), device=self.device)
        whole = self.processes.total(count)
        return torch.stack([total_loss * whole, correct, count, self._update()])

    @torch.no_grad()
    def _said_by_the_teacher(self, images: Tensor) -> Tensor | None:
        """The teacher's logits, in the precision of the model's."""
        if self.teacher is None:
            return None
        with autocast(self.device, self.precision):
            logits: Tensor = self.teacher(images)[0]
        return logits

    def _shares(
        self, pieces: Sequence[Tensor], *, num_outputs: int, is_spare: bool
    ) -> list[Tensor]:
        """What each piece's mean counts in the whole batch's; none where it is that batch."""
        if len(pieces) == 1 and self.processes.world == 1:
            return []
        normalizers = torch.stack(
            [self.loss.normalizer(p, num_outputs=num_outputs) for p in pieces]
        )
        whole = self.processes.total(normalizers.sum() * (not is_spare))
        shares = self.loss.divisor(normalizers) / self.loss.divisor(whole)
        return list((shares * (not is_spare)).unbind())

    def _gradients_kept(self) -> contextlib.AbstractContextManager[None]:
        """Leave gradients in this process until the last piece of a batch."""
        if self.processes.world == 1:
            return contextlib.nullcontext()
        assert isinstance(self._shared_model, DistributedDataParallel)
        return self._shared_model.no_sync()

    def _update(self) -> Tensor:
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm(
            [p.grad for p in self.parameters if p.grad is not None]
        )
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model)
        return norm.detach()


def piece_sizes(num_images: int, num_pieces: int) -> list[int]:
    """Images in each piece of a batch, as ``Tensor.chunk`` has them, but for a lone last image.

    It joins the piece before: batch normalisation has no statistics of one image.

    >>> piece_sizes(7, 3), piece_sizes(8, 3), piece_sizes(3, 3)
    ([3, 4], [3, 3, 2], [1, 1, 1])
    """
    size = -(-num_images // num_pieces)
    sizes = [min(size, num_images - start) for start in range(0, num_images, size)]
    if len(sizes) > 1 and size > sizes[-1] == 1:
        sizes[-2:] = [size + 1]
    return sizes


class _Pending(NamedTuple):
    """A step whose sums nobody has looked at yet; they stay on the device until then."""

    step: int
    targets: Tensor
    sums: Tensor


def _of_outputs(pieces: Sequence[Tensor], logits: Tensor) -> Sequence[Tensor]:
    """Soft targets (N, 2) become those of the positive class where the model has one output."""
    if logits.shape[1] > 1 or pieces[0].ndim == 1:
        return pieces
    return [piece[:, 1:] for piece in pieces]


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
