"""What class weights do."""

from __future__ import annotations

from typing import cast

import torch

from .. import class_weights
from ._subject import (
    COUNTS,
    NUM_CLASSES,
    Failed,
    Subject,
    expect_close,
    kinds_of_targets,
    random_batch,
)
from ._variants import at_every_key


@at_every_key
def doubled_weights(subject: Subject) -> None:
    """Catch a term that is not linear in the weights: p taken from the weighted likelihood."""
    subject.require_weight()
    weight = (0.5, 1.0, 2.0, 4.0)
    single = subject.weighed(weight=weight)
    double = subject.weighed(weight=[2 * w for w in weight])
    for batch in kinds_of_targets(subject, random_batch()):
        found, expected = subject.total(double, batch), 2 * subject.total(single, batch)
        expect_close(found, expected, what="the loss at doubled weights")


@at_every_key
def weight_of_the_true_class(subject: Subject) -> None:
    """Catch a sample that is weighed by a class other than its own, or not at all."""
    subject.require_weight()
    for label in range(NUM_CLASSES):
        batch = random_batch(4).take(slice(label, label + 1))
        weight = [10.0] * NUM_CLASSES
        weight[label] = 3.0
        plain = subject.total(subject.build(), batch)
        found = subject.total(subject.weighed(weight=weight), batch)
        expect_close(found, 3 * plain, what=f"the loss of one sample of class {label} of weight 3")


@at_every_key
def weights_of_mixed_targets(subject: Subject) -> None:
    """Catch a mixed sample weighed by a class that it has no part of, or not by its own."""
    subject.require_weight()
    subject.require("takes_soft_targets", otherwise="takes no soft targets")
    mixed = torch.tensor([[0.3, 0.7, 0, 0], [1.0, 0, 0, 0], [0.6, 0.4, 0, 0]])
    batch = random_batch(3)._replace(targets=mixed)
    found = subject.total(subject.weighed(weight=(3.0, 3.0, 10.0, 0.1)), batch)
    expected = 3 * subject.total(subject.build(), batch)
    expect_close(found, expected, what="the loss of mixtures of two classes of weight 3")
    pair = [subject.weighed(weight=(0.5, 2.0, *others)) for others in ((1.0, 1.0), (10.0, 0.1))]
    found, expected = (subject.total(loss, batch) for loss in pair)
    expect_close(found, expected, what="the loss after other classes got other weights")


@at_every_key
def weights_taken_back(subject: Subject) -> None:
    """Catch class weights that outlive ``set_weight(None)``, as deferred re-weighting might."""
    subject.require_weight()
    loss, batch = subject.build(), random_batch()
    plain = subject.value(loss, batch)
    loss.set_weight(torch.tensor([0.0, 1.0, 2.0, 4.0]))
    loss.set_weight(None)
    expect_close(subject.value(loss, batch), plain, what="the loss after weights were taken back")


@at_every_key
def weight_zero(subject: Subject) -> None:
    """Catch a loss that accepts a sample of a class of weight 0, one without training images."""
    subject.require_weight()
    loss = subject.weighed(weight=[1.0, 1.0, 1.0, 0.0])
    try:
        subject.value(loss, random_batch())
    except ValueError:
        return
    raise Failed("a sample of a class of weight 0 is no ValueError")


def wrong_weights(subject: Subject) -> None:
    """Catch class weights that are negative, NaN, no vector or no numbers being accepted."""
    subject.require_method("set_weight")
    for weight in ([1.0, -1.0, 1.0, 1.0], [1.0, torch.nan, 1.0, 1.0], 1.0, ["1", "2", "3", "4"]):
        try:
            subject.build().set_weight(cast(list[float], weight))
        except ValueError:
            continue
        raise Failed(f"class weights {weight} are no ValueError")


def class_balanced_limits(subject: Subject) -> None:
    """Catch effective-number weights that are not 1 at beta 0 or the inverse counts at beta 1."""
    subject.require_weight()
    batch = random_batch(dtype=torch.float64)
    inverse = class_weights(COUNTS, scheme="inverse")
    for beta, expected in ((0.0, None), (1e-12, None), (1 - 1e-9, inverse), (1.0, inverse)):
        loss = subject.build()
        loss.set_weight(class_weights(COUNTS, scheme="effective_number", beta=beta))
        value = subject.value(loss, batch)
        loss.set_weight(expected)
        expect_close(
            value, subject.value(loss, batch), what=f"the loss at beta={beta}", tolerance=1e-6
        )
