"""What a loss computes: its formula, its limits, and what must not change its value."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from . import _oracles
from ._oracles import OLD_CLASSES
from ._subject import (
    COUNTS,
    NUM_CLASSES,
    WEIGHT,
    Batch,
    Failed,
    NotApplicable,
    Subject,
    at,
    class_of,
    expect_close,
    random_batch,
)
from ._variants import at_every_key, defaults


@at_every_key
def slow_loop(subject: Subject) -> None:
    """Catch a formula other than the stated one, by a loop over plain Python numbers."""
    oracle = _oracles.oracle_of(subject.component)
    if oracle is None:
        raise NotApplicable("states no oracle")
    for keys in subject.gammas():
        loss = subject.weighed(keys)
        for seed in range(3):
            batch = random_batch(7, dtype=torch.float64, seed=seed)
            rows = _oracles.Rows(
                logits=batch.logits.tolist(),
                labels=batch.targets.tolist(),
                weight=list(WEIGHT) if subject.takes_weight else [1.0] * NUM_CLASSES,
                counts=list(COUNTS),
                features=batch.features.tolist(),
                teacher_logits=batch.teacher_logits.tolist(),
                keys={**defaults(subject), **subject.keys, **keys},
            )
            expected = torch.tensor(oracle(loss, rows), dtype=torch.float64)
            expect_close(
                subject.value(loss, batch), expected, what=f"the loss{at(keys)}", tolerance=1e-6
            )


def stated_limits(subject: Subject) -> None:
    """Catch a formula that does not become the loss named in ``equals`` at the keys given there."""
    _compare_with_limits(subject, random_batch(7, dtype=torch.float64))


def stated_limits_of_soft_targets(subject: Subject) -> None:
    """Catch the same for soft targets, which public code treats in five ways."""
    subject.require("takes_soft_targets", otherwise="takes no soft targets")
    soft = random_batch(7, dtype=torch.float64, seed=1).logits.softmax(1)
    _compare_with_limits(subject, random_batch(7, dtype=torch.float64)._replace(targets=soft))


def _compare_with_limits(subject: Subject, batch: Batch) -> None:
    if not subject.fact("equals"):
        raise NotApplicable("states none")
    for keys, name, other_keys in subject.fact("equals"):
        other = Subject(name, class_of(name))
        if subject.takes_weight and other.takes_weight:
            pair = subject.weighed(keys), other.weighed(other_keys)
        else:
            pair = subject.build(keys), other.build(other_keys)
        value, gradient = subject.slope(pair[0], batch)
        expected = other.slope(pair[1], batch)
        where = f"{at(keys)}, against {name}{at(other_keys)},"
        expect_close(value, expected[0], what=f"the loss{where}", tolerance=1e-9)
        expect_close(gradient, expected[1], what=f"the gradient{where}", tolerance=1e-9)


@at_every_key
def positive_scalar(subject: Subject) -> None:
    """Catch a mean that is not a scalar or not above 0, or a gradient that is 0."""
    value, gradient = subject.slope(subject.build(), random_batch())
    if value.shape != ():
        raise Failed(f"the mean has shape {tuple(value.shape)}")
    if not value > 0:
        raise Failed(f"the loss of a random batch is {value.item():.3g}")
    if not gradient.any():
        raise Failed("the gradient is 0")


def descent(subject: Subject) -> None:
    """Catch a gradient that points uphill, or a loss that rewards a class other than the true."""
    loss, batch = subject.build(), random_batch(dtype=torch.float64)
    before, gradient = subject.slope(loss, batch)
    lower = batch.logits - 1e-3 * gradient / gradient.norm()
    after = subject.value(loss, batch._replace(logits=lower))
    if not after < before:
        raise Failed(f"a step against the gradient changes {before:.8g} to {after:.8g}")
    likelihoods = [-F.cross_entropy(logits, batch.targets) for logits in (batch.logits, lower)]
    if not likelihoods[1] > likelihoods[0]:
        raise Failed("a step against the gradient makes the true classes less likely")


@at_every_key
def one_hot_targets(subject: Subject) -> None:
    """Catch one-hot soft targets that do not give what labels give, class weights or not."""
    subject.require("takes_soft_targets", otherwise="takes no soft targets")
    for loss in (subject.build(), subject.weighed()):
        for pixels in [(), (3, 5)] if subject.fact("dense") else [()]:
            hard = random_batch(pixels=pixels)
            one_hot = F.one_hot(hard.targets, NUM_CLASSES).movedim(-1, 1).float()
            found = subject.slope(loss, hard._replace(targets=one_hot))
            expected = subject.slope(loss, hard)
            weights = "" if getattr(loss, "weight", None) is None else " with class weights"
            expect_close(found[0], expected[0], what=f"the loss of one-hot targets{weights}")
            expect_close(found[1], expected[1], what=f"the gradient of one-hot targets{weights}")


@at_every_key
def dense_logits(subject: Subject) -> None:
    """Catch dense logits (N, C, H, W) that do not give what their pixels give as samples."""
    subject.require("dense", otherwise="takes no dense logits")
    loss = subject.weighed()
    dense = random_batch(2, pixels=(3, 5))
    dense.targets[0, 0, 0] = -100
    row = dense._replace(
        logits=dense.logits.movedim(1, -1).reshape(-1, NUM_CLASSES),
        teacher_logits=dense.teacher_logits.movedim(1, -1).reshape(-1, NUM_CLASSES),
        targets=dense.targets.flatten(),
    )
    expect_close(subject.value(loss, dense), subject.value(loss, row), what="the loss of pixels")


def memory_layout(subject: Subject) -> None:
    """Catch a `view` or stride trick that goes wrong on transposed or channels-last logits."""
    loss, batch = subject.weighed(), random_batch()
    expected = subject.slope(loss, batch)
    transposed = batch._replace(logits=batch.logits.t().contiguous().t())
    found = subject.slope(loss, transposed)
    expect_close(found[0], expected[0], what="the loss of transposed logits")
    expect_close(found[1], expected[1], what="the gradient of transposed logits")
    if subject.fact("dense"):
        dense = random_batch(2, pixels=(3, 5))
        expected = subject.slope(loss, dense)
        last = dense.logits.contiguous(memory_format=torch.channels_last)
        found = subject.slope(loss, dense._replace(logits=last))
        expect_close(found[0], expected[0], what="the loss of channels-last logits")
        expect_close(found[1], expected[1], what="the gradient of channels-last logits")


@at_every_key
def class_permutation(subject: Subject) -> None:
    """Catch a class that is special by its index, or counts and weights of another class."""
    order = torch.tensor([2, 0, 3, 1])
    number = order.argsort()
    batch = random_batch(dtype=torch.float64)
    renamed = batch._replace(
        logits=batch.logits[:, order],
        teacher_logits=batch.teacher_logits[:, order],
        targets=number[batch.targets],
    )
    vectors = {k: v for k, v in subject.keys.items() if isinstance(v, tuple)}
    other = subject.weighed(
        {key: tuple(values[c] for c in order) for key, values in vectors.items()},
        weight=[WEIGHT[c] for c in order],
        counts=[COUNTS[c] for c in order],
        old_classes=[int(number[c]) for c in OLD_CLASSES],
    )
    value, gradient = subject.slope(subject.weighed(), batch)
    found = subject.slope(other, renamed)
    # float32 weights may be rounded once more or less than the values they multiply.
    expect_close(found[0], value, what="the loss of renamed classes", tolerance=1e-6)
    expect_close(
        found[1], gradient[:, order], what="the gradient of renamed classes", tolerance=1e-6
    )


def repeated_call(subject: Subject) -> None:
    """Catch a state or a random number that makes the second call differ from the first."""
    loss, batch = subject.weighed(), random_batch()
    first = subject.value(loss, batch)
    expect_close(subject.value(loss, batch), first, what="the loss of the same batch again")


def inputs_left_alone(subject: Subject) -> None:
    """Catch an in-place operation on what the caller still needs."""
    loss, batch = subject.weighed(), random_batch()
    before = [part.clone() for part in batch]
    subject.value(loss, batch)
    for name, part, kept in zip(batch._fields, batch, before, strict=True):
        if not torch.equal(part, kept):
            raise Failed(f"the {name} are changed in place")
