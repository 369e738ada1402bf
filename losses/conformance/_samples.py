"""Which samples count: none, one, ignored ones, classes that are absent, labels that are wrong."""

from __future__ import annotations

import torch

from ._subject import (
    NUM_CLASSES,
    Batch,
    Failed,
    NotApplicable,
    Subject,
    expect_close,
    expect_finite,
    kinds_of_targets,
    random_batch,
)
from ._variants import at_every_key

IGNORED = -100
COPIES = 8192  # of 8 samples: large enough for what a loss does differently at some size


@at_every_key
def empty_batch(subject: Subject) -> None:
    """Catch a mean over nothing that is NaN instead of 0 with zero gradient."""
    value, _ = subject.slope(subject.weighed(), random_batch().take(slice(0)))
    if value != 0:
        raise Failed(f"the loss of no samples is {value.item():g}, not 0")


@at_every_key
def all_ignored(subject: Subject) -> None:
    """Catch a batch of ignored samples whose mean is NaN instead of 0 with zero gradient."""
    batch = random_batch()
    batch.targets.fill_(IGNORED)
    value, gradient = subject.slope(subject.weighed(), batch)
    if value != 0 or bool(gradient.ne(0).any()):
        raise Failed(f"the loss of ignored samples is {value.item():g}, not 0 with zero gradient")


@at_every_key
def ignoring_is_dropping(subject: Subject) -> None:
    """Catch ignored samples that count in the mean or get a gradient."""
    loss, batch = subject.weighed(), random_batch(8)
    kept = torch.tensor([0, 2, 3, 5])
    expected = subject.slope(loss, batch.take(kept))
    ignored = torch.full_like(batch.targets, IGNORED)
    ignored[kept] = batch.targets[kept]
    value, gradient = subject.slope(loss, batch._replace(targets=ignored))
    expect_close(value, expected[0], what="the loss of a batch with ignored samples")
    expect_close(gradient[kept], expected[1], what="the gradient of samples next to ignored ones")
    gradient[kept] = 0
    if gradient.any():
        raise Failed("ignored samples have a gradient")


@at_every_key
def batch_of_one(subject: Subject) -> None:
    """Catch a squeeze, or a statistic of the batch, that fails for a single sample."""
    for label in range(NUM_CLASSES):
        batch = random_batch(4).take(slice(label, label + 1))
        value, gradient = subject.slope(subject.weighed(), batch)
        expect_finite(value, gradient, where=f"for one sample of class {label}")
        if value.shape != () or not gradient.any():
            raise Failed(f"one sample of class {label} gives no scalar with a gradient")


@at_every_key
def large_batch(subject: Subject) -> None:
    """Catch a large batch that differs from its small repeats: another code path, drifting sums."""
    loss, few = subject.weighed(), random_batch(8)
    many = Batch(*(part.repeat(COPIES, *[1] * (part.ndim - 1)) for part in few))
    value, gradient = subject.slope(loss, few)
    found = subject.slope(loss, many)
    expect_close(found[0], value, what=f"the loss of a batch {COPIES} times over", tolerance=1e-5)
    expect_close(
        found[1] * COPIES,
        gradient.repeat(COPIES, 1),
        what=f"the gradient of a batch {COPIES} times over",
        tolerance=1e-4,
    )


@at_every_key
def absent_class(subject: Subject) -> None:
    """Catch a division by the number of samples of a class that the batch does not have."""
    batch = random_batch()
    for label in range(NUM_CLASSES):
        only = batch._replace(targets=torch.full_like(batch.targets, label))
        expect_finite(
            *subject.slope(subject.weighed(), only), where=f"where all samples have class {label}"
        )


def extreme_counts(subject: Subject) -> None:
    """Catch the log or inverse of a count of 0, and counts of a million that half cannot hold."""
    if "class_counts" not in subject.parameters:
        raise NotApplicable("does not know class counts")
    loss = subject.build(counts=(1_000_000, 1, 0, 30))
    batch = random_batch()
    present = batch._replace(targets=torch.tensor([0, 1, 3, 0, 1, 3]))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        value, gradient = subject.slope(loss, present.to(dtype))
        expect_finite(value, gradient, where=f"with counts of 0 and a million in {dtype}")
    try:
        subject.value(loss, batch)
    except ValueError:
        return
    raise Failed("a sample of a class of count 0 is no ValueError")


def wrong_labels(subject: Subject) -> None:
    """Catch a label out of range that is taken for another class or for no class."""
    loss = subject.build()
    for label in (-1, NUM_CLASSES):
        batch = random_batch()
        batch.targets[-1] = label
        try:
            subject.value(loss, batch)
        except IndexError:
            continue
        raise Failed(f"label {label} of {NUM_CLASSES} classes is no IndexError")


def shapes_that_do_not_fit(subject: Subject) -> None:
    """Catch targets that broadcast to a meaningless value, such as soft ones of shape (N, 1)."""
    logits = random_batch().logits
    num, num_classes = logits.shape
    for shape in ((num, 1), (1, num_classes), (num, num_classes + 1), (num + 1,)):
        for given in (torch.full(shape, 0.5), torch.zeros(shape, dtype=torch.int64)):
            try:
                subject.value(subject.build(), random_batch()._replace(targets=given))
            except (ValueError, RuntimeError, IndexError):
                continue
            raise Failed(
                f"{given.dtype} targets {shape} for logits {tuple(logits.shape)} are not an error"
            )


@at_every_key
def sums_over_parts(subject: Subject) -> None:
    """Catch a wrong ``is_mean_over_samples``: whether pieces of a batch make up its mean."""
    subject.require_method("normalizer")
    loss = subject.weighed()
    labels = random_batch(10, dtype=torch.float64)
    some = labels._replace(targets=labels.targets.clone())
    some.targets[[1, 3, 7]] = IGNORED  # some of a part, all of it, none of it in proportion
    batches = [*kinds_of_targets(subject, labels), some]
    if subject.fact("dense"):
        batches.append(random_batch(10, dtype=torch.float64, pixels=(3, 2)))
        batches[-1].targets[0, 1:] = IGNORED
    for batch in batches:
        parts = [batch.take(slice(3)), batch.take(slice(3, 4)), batch.take(slice(4, 10))]
        normalizers = [loss.normalizer(p.targets, num_outputs=NUM_CLASSES).double() for p in parts]
        divisor = loss.divisor(torch.stack(normalizers).sum())
        shares = [
            subject.value(loss, part) * loss.divisor(normalizer) / divisor
            for part, normalizer in zip(parts, normalizers, strict=True)
        ]
        found, whole = torch.stack(shares).sum(), subject.value(loss, batch)
        if subject.fact_here("is_mean_over_samples"):
            expect_close(found, whole, what="the sum over parts", tolerance=1e-6)
        elif torch.allclose(found, whole, rtol=1e-6):
            raise Failed("states to be no mean over samples, but is one")
