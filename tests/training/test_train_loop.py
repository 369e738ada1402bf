"""The batch loops: divergence is caught where it happens, odd batches mix, predictions keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data import Mixup
from torch import Tensor, nn

from engine.training.checkpoint import load_latest
from engine.training.checkpointer import Checkpointer, CheckpointOptions, Progress
from engine.training.divergence import (
    DivergenceError,
    NonFiniteLossError,
    NonFinitePredictionsError,
    NonFiniteWeightsError,
)
from engine.training.epoch_totals import EpochTotals, Step
from engine.training.mixing import mixed
from engine.training.predict_loop import predict
from engine.training.signals import Interruption
from engine.training.train_loop import Trainer, predicted_classes
from losses.cross_entropy import CrossEntropy

CPU = torch.device("cpu")
CLASSES = 5
OVERFLOWING = 3e38  # a learning rate whose product with a gradient above 1 is infinite


class Images(NamedTuple):
    """A batch."""

    images: Tensor
    targets: Tensor
    index: Tensor
    is_spare: bool = False


def batch(*targets: int, seed: int = 0, scale: float = 1.0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(len(targets), 1, 2, 2, generator=generator) * scale
    return Images(images, torch.tensor(targets), torch.arange(len(targets)))


class Linear(nn.Module):
    """Images to logits and features; ``num_outputs`` logits."""

    def __init__(self, num_outputs: int = CLASSES) -> None:
        super().__init__()
        self.head = nn.Linear(4, num_outputs)
        nn.init.ones_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = images.flatten(1)
        return self.head(features), features


def trainer(loss: nn.Module | None = None, *, lr: float = 0.1) -> Trainer:
    model = Linear()
    return Trainer(
        model,
        loss or CrossEntropy(),
        optimizer=torch.optim.SGD(model.parameters(), lr=lr),
        rate=lambda *_: lr,
        seed=0,
        device=CPU,
        num_outputs=CLASSES,
    )


def train(
    given: Trainer,
    batches: Sequence[Images],
    *,
    epoch: int = 0,
    after_step: Callable[[Step], None] | None = None,
) -> EpochTotals:
    return given.train_epoch(
        batches, epoch=epoch, steps=len(batches), totals=EpochTotals(), after_step=after_step
    )


# --- divergence -----------------------------------------------------------------------------------


class BadGradient(torch.autograd.Function):
    """A finite value whose gradient is infinite, as a square root at 0 has it."""

    @staticmethod
    def forward(context: object, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        return gradient * float("inf")


class Spoiled(CrossEntropy):
    """Cross-entropy that goes wrong on batches which hold class 4."""

    def __init__(self, spoil: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.spoil = spoil

    def forward(self, logits: Tensor, targets: Tensor, **extras: Tensor | None) -> Tensor:
        value = super().forward(logits, targets, **extras)
        return self.spoil(value) if (targets == 4).any() else value


SPOILS: dict[str, Callable[[Tensor], Tensor]] = {
    "loss is NaN": lambda value: value * float("nan"),
    "loss is infinite": lambda value: value + float("inf"),
    "gradient is infinite": BadGradient.apply,
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_loss_or_gradient_that_is_not_finite_stops_at_its_step_and_names_the_classes(
    spoil: str,
) -> None:
    batches = [batch(0, 1), batch(1, 2), batch(2, 4, 2), batch(0, 1)]
    taken: list[int] = []
    with pytest.raises(NonFiniteLossError) as caught:
        train(
            trainer(Spoiled(SPOILS[spoil])),
            batches,
            epoch=6,
            after_step=lambda step: taken.append(step.step),
        )
    assert (caught.value.epoch, caught.value.step, caught.value.classes) == (6, 2, (2, 4))
    assert str(caught.value).startswith("epoch 7, step 3: the loss or its gradient is not finite")
    assert str(caught.value).endswith("classes in the batch: 2, 4")
    assert taken == [1, 2]


def test_a_step_of_a_resumed_epoch_is_counted_from_the_beginning_of_the_epoch() -> None:
    totals = EpochTotals(loss=1.0, images=6, steps=3)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer(Spoiled(SPOILS["loss is NaN"])).train_epoch(
            [batch(0), batch(4)], epoch=0, steps=5, totals=totals
        )
    assert caught.value.step == 4


def test_sums_before_the_bad_step_are_kept() -> None:
    totals = EpochTotals()
    with pytest.raises(NonFiniteLossError):
        trainer(Spoiled(SPOILS["loss is NaN"])).train_epoch(
            [batch(0, 1), batch(4, 4)], epoch=0, steps=2, totals=totals
        )
    assert totals.images == 2
    assert np.isfinite(totals.loss)


def checkpointer(folder: Path, given: Trainer) -> Checkpointer:
    """One that writes after every step."""
    return Checkpointer(
        folder,
        given,
        progress=Progress(),
        interruption=Interruption(),
        options=CheckpointOptions(seconds=1e-9),
    )


@pytest.mark.parametrize(
    ("loss", "lr", "error"),
    [
        (CrossEntropy(), OVERFLOWING, NonFiniteWeightsError),
        (Spoiled(SPOILS["loss is NaN"]), 0.1, NonFiniteLossError),
        (Spoiled(SPOILS["gradient is infinite"]), 0.1, NonFiniteLossError),
    ],
    ids=["step overflows the weights", "loss", "gradient"],
)
def test_a_checkpoint_is_never_made_from_weights_that_are_not_finite(
    tmp_path: Path, loss: nn.Module, lr: float, error: type[DivergenceError]
) -> None:
    given = trainer(loss, lr=lr)
    checkpoints = checkpointer(tmp_path, given)
    checkpoints.save()
    with pytest.raises(error), checkpoints.named_on_divergence():
        train(
            given,
            [batch(0, 1, scale=10.0), batch(0, 4)],
            after_step=lambda _: checkpoints.poll(),
        )
    assert not all(torch.isfinite(p).all() for p in given.model.parameters())
    state = load_latest(tmp_path).state
    assert state is not None
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_weights_that_are_not_finite_are_named_with_epoch_and_step(tmp_path: Path) -> None:
    given = trainer(lr=OVERFLOWING)
    checkpoints = checkpointer(tmp_path, given)
    with (
        pytest.raises(NonFiniteWeightsError) as caught,
        checkpoints.named_on_divergence(),
    ):
        train(
            given,
            [batch(0, 1, scale=10.0)],
            epoch=2,
            after_step=lambda _: checkpoints.poll(),
        )
    assert str(caught.value) == "epoch 3, step 1: head.weight is not finite"
    assert caught.value.__notes__[0] == "no checkpoint was made"


def test_a_divergence_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    given = trainer(Spoiled(SPOILS["loss is NaN"]))
    checkpoints = checkpointer(tmp_path, given)
    checkpoints.save()
    with pytest.raises(DivergenceError) as caught, checkpoints.named_on_divergence():
        train(given, [batch(4)])
    assert caught.value.__notes__[0] == f"last good checkpoint: {tmp_path / 'last.pt'}"


# --- sums of an epoch -----------------------------------------------------------------------------


def test_the_sums_of_an_epoch_are_those_of_its_images() -> None:
    """With a rate of 0 the model stays, so that the numbers can be taken from outside."""
    batches = [batch(0, 1, 2, seed=1), batch(3, seed=2)]
    given = trainer(lr=0.0)
    totals = train(given, batches)
    images = torch.cat([b.images for b in batches])
    targets = torch.cat([b.targets for b in batches])
    logits = given.model(images)[0]
    loss = nn.functional.cross_entropy(logits, targets, reduction="sum")
    assert totals.loss == pytest.approx(loss.item(), rel=1e-6)
    assert totals.correct == (logits.argmax(1) == targets).sum().item()
    assert (totals.images, totals.steps) == (4, 2)
    assert totals.metrics()["loss"] == pytest.approx(loss.item() / 4, rel=1e-6)


def test_the_gradient_norm_is_the_mean_over_steps() -> None:
    batches = [batch(0, 1, seed=1), batch(3, 2, seed=2)]
    given = trainer(lr=0.0)
    norms = []
    for one in batches:
        given.model.zero_grad()
        nn.functional.cross_entropy(given.model(one.images)[0], one.targets).backward()
        grads = [p.grad.flatten() for p in given.model.parameters() if p.grad is not None]
        norms.append(torch.cat(grads).norm().item())
    assert train(given, batches).metrics()["grad_norm"] == pytest.approx(np.mean(norms), rel=1e-5)


def test_an_epoch_of_no_steps_has_no_division_by_zero() -> None:
    assert EpochTotals().metrics() == {"loss": 0.0, "accuracy": 0.0, "grad_norm": 0.0}


# --- mixing ---------------------------------------------------------------------------------------


def mixup() -> Mixup:
    return Mixup(mixup_alpha=1.0, cutmix_alpha=0.0, label_smoothing=0.0, num_classes=CLASSES)


@settings(max_examples=25)
@given(st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=9))
def test_a_batch_of_any_size_mixes_in_pairs_and_leaves_an_odd_one_alone(targets: list[int]) -> None:
    one = batch(*targets)
    before = one.images.clone()
    images, soft = mixed(mixup(), one.images, one.targets)
    assert images.shape == before.shape
    assert soft.shape == (len(targets), CLASSES)
    assert torch.equal(one.images, before)
    torch.testing.assert_close(soft.sum(1), torch.ones(len(targets)))
    if len(targets) % 2:
        assert torch.equal(images[-1], before[-1])
        assert soft[-1].tolist() == [float(c == targets[-1]) for c in range(CLASSES)]


def test_a_mixed_image_and_its_label_have_the_same_shares() -> None:
    one = batch(0, 1)
    images, soft = mixed(mixup(), one.images, one.targets)
    share = soft[0, 0]
    torch.testing.assert_close(images[0], share * one.images[0] + (1 - share) * one.images[1])
    torch.testing.assert_close(soft[0, 1], 1 - share)


# --- predictions ----------------------------------------------------------------------------------


def batches_of(*batches: Images) -> Iterator[Images]:
    return iter(batches)


def test_one_logit_x_is_stored_as_the_two_logits_0_and_x() -> None:
    model, one = Linear(1), batch(0, 1, 1)
    found = predict(model, batches_of(one), num_images=len(one.targets), device=CPU)
    expected = model(one.images)[0].detach().numpy()
    assert found.logits.shape == (3, 2)
    assert (found.logits[:, 0] == 0).all()
    np.testing.assert_array_equal(found.logits[:, 1:], expected)


def test_predictions_are_those_of_the_batches_in_order() -> None:
    model, first, second = Linear(), batch(0, 1, seed=1), batch(2, seed=2)
    found = predict(model, batches_of(first, second), num_images=3, device=CPU)
    expected = model(torch.cat([first.images, second.images]))[0].detach().numpy()
    np.testing.assert_allclose(found.logits, expected, rtol=1e-6)
    assert found.targets.tolist() == [0, 1, 2]
    assert found.index.tolist() == [0, 1, 0]
    assert found.logits.dtype == np.float32


class Dropped(Linear):
    """Drops everything while it trains."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(images * 0 if self.training else images)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_predictions_are_made_in_eval_mode_and_the_mode_comes_back(mode: str) -> None:
    model, one = Dropped(), batch(0, 1)
    model.train(mode == "train")
    found = predict(model, batches_of(one), num_images=len(one.targets), device=CPU)
    assert (found.logits != 0).all()
    assert model.training is (mode == "train")


def test_every_batch_of_predictions_may_be_interrupted() -> None:
    calls: list[None] = []
    predict(
        Linear(),
        batches_of(batch(0), batch(1)),
        num_images=2,
        device=CPU,
        after_batch=lambda: calls.append(None),
    )
    assert len(calls) == 2


def test_predictions_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(NonFinitePredictionsError, match="not finite"):
        predict(Linear(), batches_of(batch(0, scale=1e39)), num_images=1, device=CPU)


def test_one_logit_decides_by_its_sign_and_several_by_the_largest() -> None:
    assert predicted_classes(torch.tensor([[-0.1], [0.1]])).tolist() == [0, 1]
    assert predicted_classes(torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])).tolist() == [1, 0]


def test_weights_whose_sum_overflows_are_finite() -> None:
    given = trainer()
    with torch.no_grad():
        for parameter in given.model.parameters():
            parameter.fill_(torch.finfo(torch.float32).max)
    given.check_weights()
