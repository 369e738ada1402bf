"""The batch loop of training: one epoch, step by step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine.training.averaging import EpochMean, renew_statistics
from engine.training.base_weights import Base
from engine.training.cost import Meter
from engine.training.divergence import NonFiniteLossError, NonFiniteWeightsError
from engine.training.epoch_totals import EpochTotals, Step
from engine.training.interfaces import Batch, Criterion
from engine.training.mixing import mixed
from engine.training.norms import normalise_in_float32
from engine.training.pieces import Piece, piece_sizes
from engine.training.processes import Processes
from engine.training.runtime import (
    Precision,
    autocast,
    derive_seed,
    preserved_randomness,
    seed_global,
)
from engine.training.sharpness import ascended
from engine.training.teacher import Teacher

SMALLEST_SCALE = 2.0**-10  # of a float16 loss; gradients that overflow even then have diverged
CHECK_EVERY = 50  # optimizer steps between looks at the device's sums (each look waits for it)


@dataclass(frozen=True)
class StepOptions:
    """How a step is computed.

    Attributes:
        accumulate: pieces a batch is split into; the gradient is that of the whole batch, but for
            batch normalisation, which takes the statistics of each piece.
        clip_norm: largest global gradient norm, or None.
        sam: how far sharpness-aware minimisation looks; 0 for a plain step.
        precision: of the model's arithmetic.
        keeps_gradients: gradients have memory of their own, since a CUDA graph writes those of the
            next piece of a batch over those of the one before.
    """

    accumulate: int = 1
    clip_norm: float | None = None
    sam: float = 0.0
    precision: Precision = "float32"
    keeps_gradients: bool = False


class Trainer:
    """Model, loss and optimizer, and the steps that train the model.

    Args:
        model: images to ``(logits, features)``.
        loss: see ``losses/_base.py``.
        optimizer: over the trainable parameters.
        rate: learning rate as a function of (epoch, step, steps an epoch).
        seed: base of the randomness of every step (dropout, mixup): a function of (seed, epoch,
            step) alone, so an interrupted epoch goes on as if nothing had happened.
        num_outputs: logits of the model.
        teacher: or None; the loss is given its logits for the very images of each batch. It is no
            part of checkpoints.
        mix: timm's Mixup, or None. It pairs the images that one process has.
        ema: timm's ModelEmaV3, or None; told the number of each optimizer step, which its warm-up
            goes by.
        swa: the mean over epochs that :meth:`average` adds to, or None.
        options: how a step is computed.

    Attributes:
        base: the weights that training leaves alone, if checkpoints need not hold them.

    Joined processes share every batch; losses and gradients are those of the whole batch.
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
        num_outputs: int,
        teacher: Teacher | None = None,
        mix: Any = None,
        ema: Any = None,
        swa: EpochMean | None = None,
        options: StepOptions | None = None,
    ) -> None:
        self.model, self.loss, self.optimizer, self.rate = model, loss, optimizer, rate
        self.seed, self.device, self.mix, self.ema = seed, device, mix, ema
        self.num_outputs, self.teacher, self.swa = num_outputs, teacher, swa
        self.base: Base | None = None
        options = options or StepOptions()
        self.accumulate, self.clip_norm = options.accumulate, options.clip_norm
        self.sam, self.precision = options.sam, options.precision
        self.keeps_gradients = options.keeps_gradients
        self.processes = Processes.current()
        if device.type == "cpu" and self.precision != "float32":
            normalise_in_float32(model)
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        # Unscaled, float16 gradients of a mean over a batch would be flushed to zero.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "float16")
        self._shared_model = self.processes.sharing_gradients(model)
        # What a step calls; :meth:`rehearse` shows a compiled model that is to take its place.
        self.forward: Callable[[Tensor], Any] = self._shared_model
        # Not mixup's or dropout's draws of another process.
        self._own_seed = (self.processes.rank,) if self.processes.rank else ()
        self._pending: list[_Pending] = []
        self._totals, self._epoch, self._meter = EpochTotals(), 0, Meter(device)

    @property
    def passes(self) -> int:
        """How often a step takes each image of its batch through the model, and back."""
        return 2 if self.sam else 1

    @property
    def current_rate(self) -> float:
        """Learning rate of the last step, before the factors of parameter groups."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"]) / float(group.get("lr_scale", 1.0))

    @property
    def averaged(self) -> nn.Module | None:
        """The averaged weights; None where none are asked for, or the mean has not begun."""
        if self.swa is not None and self.swa.number:
            return self.swa.module
        return None if self.ema is None else self.ema.module

    @property
    def evaluated(self) -> nn.Module:
        """The weights that count: the averaged ones where there is an average."""
        return self.model if self.averaged is None else self.averaged

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimizer state and averaged weights."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.averaged is None else self.averaged.state_dict(),
            "averaged": 0 if self.swa is None else self.swa.number,
            "renewed": self.swa is None or self.swa.is_renewed,
            "scaler": self.scaler.state_dict(),
        }

    def check_weights(self) -> None:
        """Look at every weight; a step may overflow them after a loss that was finite.

        All processes together: within an epoch the statistics of batch normalisation are each one's
        own, and all must end alike.

        Raises:
            NonFiniteWeightsError: in all processes; names the first that is not finite in any.
        """
        names = [name for name in self.processes.gathered(self._not_finite()) if name is not None]
        if names:
            raise NonFiniteWeightsError(
                f"epoch {self._epoch + 1}, step {self._totals.steps}: {names[0]} is not finite"
            )

    def _not_finite(self) -> str | None:
        """Return the name of the first of this process's weights that is not finite."""
        state = self.model.state_dict()
        # A sum over anything that is not finite is not: one look at the device is enough for all.
        sums = torch.stack([value.sum(dtype=torch.float32) for value in state.values()])
        if torch.isfinite(sums).all():
            return None
        return next((n for n, value in state.items() if not torch.isfinite(value).all()), None)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; of a run that is over only the weights are left."""
        if self.swa is not None:
            self.swa.number = state.get("averaged", 0)
            self.swa.is_renewed = state.get("renewed", True)
        if state["optimizer"] is None:
            is_plain = self.averaged is None
            self.evaluated.load_state_dict(state["model"] if is_plain else state["ema"])
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["ema"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])

    @property
    def shared_model(self) -> nn.Module:
        """The model whose gradients the processes of a run share."""
        return self._shared_model

    def rehearse(self, forward: Callable[[Tensor], Any], *, shape: Sequence[int]) -> None:
        """Call the model on black images (B, C, H, W), forward and backward as a step would.

        Weights, buffers, gradients and global generators are left as they were.
        """
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        gradients = [p.grad for p in self.parameters]
        images = torch.zeros(*shape, device=self.device)

        def call() -> None:
            self._forget_gradients()
            with autocast(self.device, self.precision):
                logits = forward(images)[0]
            logits.float().sum().backward()

        self.model.train()
        try:
            with preserved_randomness():
                for parameter in self.parameters:
                    parameter.grad = None
                call()
                if self.sam:
                    with ascended(self.model, self.parameters, distance=self.sam):
                        call()
        finally:
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            with torch.no_grad():
                for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                    buffer.copy_(before)

    def train_epoch(
        self,
        batches: Iterable[Batch],
        *,
        epoch: int,
        steps: int,
        totals: EpochTotals,
        poll: Callable[[], None] | None = None,
        after_step: Callable[[Step], None] | None = None,
    ) -> EpochTotals:
        """Train on the batches that remain of an epoch.

        Args:
            batches: the ones after those that ``totals`` is of.
            epoch: its number (0-based).
            steps: optimizer steps of the whole epoch.
            totals: updated in place, and returned.
            poll: called after every step; it may stop training by raising.
            after_step: told after every step how far training is.

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
                group["lr"] = self.rate(epoch, step, steps) * group.get("lr_scale", 1.0)
            through = batch.images.ndim > 2  # features have been through the network before
            self._pending.append(_Pending(step, batch.targets, self._step(batch), through))
            if self.ema is not None:
                self.ema.update(self.model, step=epoch * steps + step + 1)
            totals.steps += 1
            if totals.steps % check_every == 0:
                self.settle()
            if poll is not None:
                poll()
            if after_step is not None:
                after_step(Step(epoch, totals.steps, steps, self.current_rate, totals))
        self.settle()
        self.note_peaks()
        self.processes.copy_buffers(self.model, *([] if self.ema is None else [self.ema.module]))
        return totals

    def average(
        self,
        batches: Iterable[Batch],
        *,
        epoch: int,
        totals: EpochTotals,
        poll: Callable[[], None] | None = None,
    ) -> None:
        """Take the weights after an epoch into the mean over epochs, where there is one.

        A checkpoint that ``poll`` makes holds the new mean; from there its statistics are renewed
        over all batches again.

        Args:
            batches: of the epoch, by which the statistics of batch normalisation are renewed.
            epoch: its number (0-based).
            totals: of the epoch; what this costs is added.
            poll: called after every batch; it may stop by raising.
        """
        if self.swa is None or epoch < self.swa.first_epoch:
            return
        if self.swa.lacks(epoch):
            self.swa.add(self.model)
        if self.swa.is_renewed:
            return
        self._begin(totals, epoch)
        number = self.renew_statistics(self.swa.module, self._images_at_once(batches, poll=poll))
        self.swa.is_renewed = True
        totals.pass_through(forward=number, backward=0)
        totals.spend(self._meter.lap())
        self.note_peaks()

    def _images_at_once(
        self, batches: Iterable[Batch], *, poll: Callable[[], None] | None
    ) -> Iterator[Tensor]:
        """Yield the images that go through the model at once; poll after each batch.

        Processes may have different numbers of pieces, and all take part in each poll.
        """
        for batch in batches:
            yield from batch.images.split(piece_sizes(len(batch.images), self.accumulate))
            if poll is not None:
                poll()

    def renew_statistics(
        self,
        model: nn.Module,
        batches: Iterable[Tensor],
        *,
        with_frozen: bool = False,
    ) -> int:
        """Give a model the batch-normalisation statistics of its own weights; return the images.

        Args:
            model: of averaged weights, with which no step of training was made.
            batches: training images (N, C, H, W), as many as go through the model at once.
            with_frozen: renew those too that rest in training.
        """

        def forward(images: Tensor) -> None:
            with autocast(self.device, self.precision):
                model(images)

        number = renew_statistics(model, batches, forward=forward, with_frozen=with_frozen)
        self.processes.copy_buffers(model)
        return round(self.processes.total(torch.tensor(float(number))).item())

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
        for made, (loss, correct, images, norm) in zip(pending, rows, strict=True):
            # Too large a scale shows in the gradients; the scaler has then left the step out.
            is_skipped = (
                self.scaler.is_enabled()
                and not np.isfinite(norm)
                and self.scaler.get_scale() > SMALLEST_SCALE
            )
            if not np.isfinite(loss) or not (np.isfinite(norm) or is_skipped):
                classes = {
                    label for of in self.processes.gathered(made.targets.tolist()) for label in of
                }
                raise NonFiniteLossError(self._epoch, made.step, sorted(classes))
            self._totals.loss += float(loss)
            self._totals.correct += float(correct)
            self._totals.grad_norm += 0.0 if is_skipped else float(norm)
            self._totals.images += round(images)
            passes = round(images) * self.passes * made.is_through
            forward = passes * (1 + (self.teacher is not None))
            self._totals.pass_through(forward=forward, backward=passes)
        self._totals.spend(self._meter.lap())

    def note_peaks(self) -> None:
        """Move the memory in use at the peak into the epoch's totals; all processes together."""
        self._totals.reach(self._meter.peaks())

    def _begin(self, totals: EpochTotals, epoch: int) -> None:
        self._totals, self._epoch = totals, epoch
        self._meter.start()

    def _step(self, batch: Batch) -> Tensor:
        """Take one optimizer step; return (4,): loss sum, correct images, images, gradient norm.

        The first three are this process's share.
        """
        pieces = self._pieces(batch)
        total_loss, correct = self._gradient(pieces, is_spare=batch.is_spare)
        if self.sam:
            with ascended(self.model, self.parameters, distance=self.sam):
                self._gradient(pieces, is_spare=batch.is_spare)
        # Filled in there: a copy from here would wait for the device.
        count = torch.full(
            (), 0.0 if batch.is_spare else float(len(batch.targets)), device=self.device
        )
        whole = self.processes.total(count)
        return torch.stack([total_loss * whole, correct, count, self._update()])

    def _gradient(self, pieces: Sequence[Piece], *, is_spare: bool) -> tuple[Tensor, Tensor]:
        """Compute the gradient of a batch; return its loss and how many images are correct."""
        self._forget_gradients()
        total_loss = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device)
        for piece in pieces:
            with contextlib.nullcontext() if piece is pieces[-1] else self._no_sync():
                loss, logits = self._backward(piece)
            total_loss += loss
            if not is_spare:
                correct += (predicted_classes(logits) == piece.labels).sum()
        return total_loss, correct

    def _forget_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=not self.keeps_gradients)
        if self.keeps_gradients:
            for parameter in self.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)

    def _pieces(self, batch: Batch) -> list[Piece]:
        """Mix a batch and split it into pieces, each with its share of the loss."""
        images, targets = batch.images, batch.targets
        if self.mix is not None:
            images, targets = mixed(self.mix, images, targets)
        if targets.ndim > 1 and self.num_outputs == 1:
            targets = targets[:, 1:]  # those of the positive class
        sizes = piece_sizes(len(images), self.accumulate)
        target_pieces = targets.split(sizes)
        return [
            Piece(*piece)
            for piece in zip(
                images.split(sizes),
                target_pieces,
                batch.targets.split(sizes),
                self._shares(target_pieces, is_spare=batch.is_spare),
                strict=True,
            )
        ]

    def _shares(
        self, pieces: Sequence[Tensor], *, is_spare: bool
    ) -> Sequence[Tensor] | Sequence[None]:
        """Return each piece's weight in the batch's mean; None for a piece that is the batch."""
        if len(pieces) == 1 and self.processes.world == 1:
            return [None]
        normalizers = torch.stack(
            [self.loss.normalizer(p, num_outputs=self.num_outputs) for p in pieces]
        )
        whole = self.processes.total(normalizers.sum() * (not is_spare))
        shares = self.loss.divisor(normalizers) / self.loss.divisor(whole)
        return (shares * (not is_spare)).unbind()

    def _backward(self, piece: Piece) -> tuple[Tensor, Tensor]:
        """Add the gradient of a piece; return its share of the loss, and its logits."""
        with autocast(self.device, self.precision):
            logits, features = self.forward(piece.images)
        loss = self.loss(
            logits,
            piece.targets,
            features=features,
            teacher_logits=self._teacher_logits(piece.images),
        )
        if piece.share is not None:
            loss = loss * piece.share
        self.scaler.scale(self.processes.scaled_for_mean(loss)).backward()
        return loss.detach(), logits.detach()

    @torch.no_grad()
    def _teacher_logits(self, images: Tensor) -> Tensor | None:
        """Return what the teacher says, computed in the model's precision, or None without one."""
        if self.teacher is None:
            return None
        with autocast(self.device, self.precision):
            logits: Tensor = self.teacher(images)
        return logits

    def _no_sync(self) -> contextlib.AbstractContextManager[None]:
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
        return norm.detach()


class _Pending(NamedTuple):
    """A step whose sums nobody has looked at yet; they stay on the device until then."""

    step: int
    targets: Tensor
    sums: Tensor
    is_through: bool  # its images went through the network


def predicted_classes(logits: Tensor) -> Tensor:
    """Return the predicted classes (N,) of logits (N, C), or of one logit a sample (N, 1)."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)
