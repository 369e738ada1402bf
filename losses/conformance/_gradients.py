"""Whether gradients are right, can be differentiated again, and lead where they should."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from .. import class_weights
from ._subject import (
    COUNTS,
    NUM_FEATURES,
    Batch,
    Failed,
    NotApplicable,
    Subject,
    at,
    expect_close,
    kinds_of_targets,
    random_batch,
)
from ._variants import at_every_key, variants

# What a model of class scores alone ends at differs from what is promised by less, or by more.
LANDING = 0.003


@at_every_key
def gradcheck(subject: Subject) -> None:
    """Catch a gradient other than the loss's own: a factor detached, a wrong backward."""
    batch = random_batch(4, dtype=torch.float64)
    leaf = batch.logits.clone().requires_grad_()
    for keys in ({}, *subject.gammas()):
        loss = subject.weighed(keys)
        for given in kinds_of_targets(subject, batch):
            function = _of_logits(subject, loss, given)
            # Along a random direction is enough for more of the same.
            fast = bool(keys) or bool(subject.keys)
            if not torch.autograd.gradcheck(function, leaf, fast_mode=fast, raise_exception=False):
                raise Failed(f"the gradient is not that of the loss{at(keys)}")


def double_backward(subject: Subject) -> None:
    """Catch a wrong second derivative, which gradient penalties and Hessians need."""
    batch = random_batch(4, dtype=torch.float64).take(slice(1, 4))
    leaf = batch.logits.clone().requires_grad_()
    loss = subject.weighed()
    for given in kinds_of_targets(subject, batch):
        function = _of_logits(subject, loss, given)
        if not torch.autograd.gradgradcheck(function, leaf, raise_exception=False):
            raise Failed("the gradient of the gradient is not that of the loss")


def function_transforms(subject: Subject) -> None:
    """Catch what torch.func cannot handle: grad, jvp, vmap and gradients sample by sample."""
    loss, batch = subject.weighed(), random_batch(dtype=torch.float64)
    function = _of_logits(subject, loss, batch)
    gradient = subject.slope(loss, batch)[1]
    expect_close(torch.func.grad(function)(batch.logits), gradient, what="torch.func.grad")
    direction = random_batch(dtype=torch.float64, seed=1).logits
    with warnings.catch_warnings():
        # What torch uses to prepare its own forward derivatives is deprecated by torch.
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=FutureWarning)
        found = torch.func.jvp(function, (batch.logits,), (direction,))[1]
    expect_close(found, (gradient * direction).sum(), what="torch.func.jvp")
    stack = torch.stack([batch.logits, direction])
    expected = torch.stack([function(batch.logits), function(direction)])
    expect_close(torch.func.vmap(function)(stack), expected, what="torch.func.vmap")
    samples = [batch.take(slice(n, n + 1)) for n in range(len(batch.logits))]
    expected = torch.stack([subject.slope(loss, sample)[1] for sample in samples])

    def of_sample(logits: Tensor, *others: Tensor) -> Tensor:
        return subject.value(loss, Batch(logits, *others))

    stacked = [torch.stack(parts) for parts in zip(*samples, strict=True)]
    found = torch.func.vmap(torch.func.grad(of_sample))(*stacked)
    expect_close(found, expected, what="the gradient sample by sample")


def fixed_point(subject: Subject) -> None:
    """Catch a prior of the wrong sign, by training scores alone on skewed data."""
    # A uniform one holds at every key: what balances training, too, is then refused or doubted.
    if subject.fact_here("fixed_point") == "unstated":
        raise NotApplicable("states none")
    stated = [dict(keys) for keys, facts in subject.fact("facts_at") if "fixed_point" in facts]
    for keys in ({}, *stated, *itertools.chain(*variants(subject).values())):
        there = replace(subject, keys=keys)
        if keys in ({}, *stated) or there.fact_here("fixed_point") == "uniform":
            _expect_landing(there)


def _expect_landing(subject: Subject) -> None:
    """Raise `Failed` unless the loss lands where it states to at its keys."""
    point = subject.fact_here("fixed_point")
    found = _landing(subject, subject.build())
    for name, posterior in _posteriors().items():
        off = float((found - posterior).abs().max())
        text = f"lands on {_numbers(found)}{at(subject.keys)}"
        text += f", where the {name} prior is {_numbers(posterior)}"
        if point == name and off > LANDING:
            raise Failed(text + _if_meant(found))
        if point == "none" and off < LANDING:
            raise Failed(f"{text}, but states to land on neither")


@at_every_key
def reweighted_fixed_point(subject: Subject) -> None:
    """Catch class weights of 1/n that do not make up for a prior of n."""
    subject.require_weight()
    if subject.fact_here("fixed_point") != "natural":
        raise NotApplicable("does not land on the natural prior")
    loss = subject.build()
    loss.set_weight(class_weights(COUNTS, scheme="inverse"))
    found = _landing(subject, loss)
    if float((found - 1 / len(COUNTS)).abs().max()) > LANDING:
        raise Failed(f"lands on {_numbers(found)} with weights of 1/n, not on equal shares")


def _if_meant(found: Tensor) -> str:
    """Say what to state of a loss that lands on the other prior on purpose."""
    for name, posterior in _posteriors().items():
        if float((found - posterior).abs().max()) <= LANDING:
            return f'; if that is meant, state fixed_point = "{name}"'
    return '; if that is meant, state fixed_point = "none"'


def _posteriors() -> dict[str, Tensor]:
    counts = torch.tensor(COUNTS, dtype=torch.float64)
    return {"natural": counts / counts.sum(), "uniform": torch.full_like(counts, 1 / len(counts))}


def _landing(subject: Subject, loss: torch.nn.Module) -> Tensor:
    """Return the class probabilities that scores alone, the same for every sample, end at."""
    targets = torch.repeat_interleave(torch.tensor(COUNTS))
    scores = torch.zeros(len(COUNTS), dtype=torch.float64, requires_grad=True)
    features = torch.ones(len(targets), NUM_FEATURES, dtype=torch.float64)
    # Without a line search, which a gradient that is not the loss's own would mislead.
    optimizer = torch.optim.LBFGS([scores], lr=0.5, max_iter=60, tolerance_change=1e-12)

    def closure() -> Tensor:
        logits = scores.expand(len(targets), -1)
        value = subject.value(loss, Batch(logits, targets, features, torch.zeros_like(logits)))
        (scores.grad,) = torch.autograd.grad(value, scores)
        return value

    optimizer.step(closure)
    logits = scores.detach().unsqueeze(0)
    predict = getattr(loss, "predict", lambda x: x.softmax(1))
    return cast(Tensor, predict(logits)[0])


def _numbers(values: Tensor) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values.tolist()) + ")"


def _of_logits(subject: Subject, loss: torch.nn.Module, batch: Batch) -> Callable[[Tensor], Tensor]:
    """Return the loss of the batch as a function of its logits."""
    return lambda logits: subject.value(loss, batch._replace(logits=logits))
