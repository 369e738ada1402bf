"""A loss as a module: copies, states, devices, compilers, progress and predictions."""

from __future__ import annotations

import copy
import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from .. import Loss
from ._subject import (
    COUNTS,
    NUM_CLASSES,
    WEIGHT,
    Batch,
    Failed,
    NotApplicable,
    Subject,
    expect_close,
    in_one_line,
    random_batch,
)

GRAPH_BREAKS = (
    "checks of values, .item() and branches on what a tensor holds break the graph: do them in "
    "__init__, or not at all"
)
CONFIDENT = 0.9  # a softmax of cosines of 4 classes is so at most 0.71, one of a scale of 30 always


def single_output(subject: Subject) -> None:
    """Catch a wrong binary task: one output x means logits (0, x) of a sigmoid, and no softmax."""
    loss = subject.build(counts=COUNTS[:2])
    batch = random_batch(num_outputs=1)
    if subject.fact("activation") != "sigmoid":
        _expect_refusal(subject, loss, batch)
        return
    value, gradient = subject.slope(loss, batch)
    if not value > 0 or not gradient.any():
        raise Failed(f"the loss of a single output is {value.item():g}")
    probabilities = loss.predict(batch.logits)
    expected = torch.cat((-batch.logits, batch.logits), dim=1).sigmoid()
    expect_close(probabilities, expected, what="the prediction from a single output")
    rise = (gradient.flatten() < 0) == (batch.targets == 1)
    if not rise.all():
        raise Failed("the gradient lowers the output of a positive, or raises that of a negative")


def _expect_refusal(subject: Subject, loss: Loss, batch: Batch) -> None:
    """Raise `Failed` for a softmax over one output: it is 1 whatever the logit."""
    try:
        value = subject.value(loss, batch)
    except (ValueError, IndexError, RuntimeError):
        return
    raise Failed(f"the loss of a softmax over a single output is {value.item():g}, and no error")


def deep_copy(subject: Subject) -> None:
    """Catch a copy that differs from its original, or that shares the class weights with it."""
    loss, batch = subject.build(), random_batch()
    twin = copy.deepcopy(loss)
    before = subject.value(loss, batch)
    expect_close(subject.value(twin, batch), before, what="the loss of a copy", tolerance=0.0)
    if subject.takes_weight:
        twin.set_weight(torch.tensor([0.3, 0.7, 1.1, 1.9]))
        after = subject.value(loss, batch)
        expect_close(after, before, what="the loss after its copy was weighed", tolerance=0.0)


def state(subject: Subject) -> None:
    """Catch a state saved after a deferred start that does not load into a loss from before it."""
    try:
        subject.build().load_state_dict(subject.weighed().state_dict())
    except RuntimeError as error:
        raise Failed("the state of a weighed loss does not load into a new one") from error


def moving(subject: Subject) -> None:
    """Catch a tensor kept as a plain attribute, which stays behind when the loss moves to a GPU."""
    loss = subject.weighed().to(torch.float64)
    batch = random_batch(dtype=torch.float64)
    expect_close(
        subject.value(loss, batch), subject.value(subject.weighed(), batch),
        what="the loss moved to float64", tolerance=1e-6,
    )  # fmt: skip
    loss.to("meta")
    kept = [name for name, value in vars(loss).items() if isinstance(value, torch.Tensor)]
    named = (*loss.named_buffers(), *loss.named_parameters())
    kept += [name for name, tensor in named if tensor.device.type != "meta"]
    if kept:
        raise Failed(f"{', '.join(sorted(kept))} does not follow .to(): register it as a buffer")
    if subject.takes_weight and "weight" not in dict(loss.named_buffers()):
        raise Failed("the class weights are not a buffer called weight")


def compiled(subject: Subject) -> None:
    """Catch a graph break or a host sync: torch.compile(fullgraph=True) has to give the same."""
    _compare_compiled(subject, backend="aot_eager")


def compiled_by_inductor(subject: Subject) -> None:
    """Catch a fusion by inductor that changes the value or the gradient."""
    if not any(shutil.which(c) for c in (os.environ.get("CXX", "g++"), "clang++")):
        raise NotApplicable("there is no C++ compiler here")
    _compare_compiled(subject, backend="inductor")


def _compare_compiled(subject: Subject, *, backend: str) -> None:
    loss = subject.weighed(weight=(0.5, 1.0, 2.0, 0.0)) if subject.takes_weight else subject.build()
    batch = random_batch()
    batch = batch._replace(targets=batch.targets.clamp_max(2))
    value, gradient = subject.slope(loss, batch)
    torch.compiler.reset()
    function = cast(nn.Module, torch.compile(loss, fullgraph=True, backend=backend))
    try:
        found = subject.slope(function, batch)
    except Exception as error:
        raise Failed(f"{in_one_line(error)}; {GRAPH_BREAKS}") from error
    expect_close(found[0], value, what="the compiled loss")
    expect_close(found[1], gradient, what="the compiled gradient")


def progress(subject: Subject) -> None:
    """Catch a loss that fails in the first, a middle or the only epoch."""
    subject.require_method("set_progress")
    loss = subject.weighed()
    for epoch, epochs in ((0, 10), (5, 10), (0, 1)):
        loss.set_progress(epoch, epochs)
        if not torch.isfinite(subject.value(loss, random_batch())):
            raise Failed(f"the loss in epoch {epoch} of {epochs} is not finite")


def predictions(subject: Subject) -> None:
    """Catch predictions that are not probabilities, rank unlike the logits or stay in half."""
    subject.require_method("predict")
    loss, logits = subject.build(), random_batch(dtype=torch.float64).logits
    for scale in (1.0, 1e4):
        p = loss.predict((scale * logits).float())
        if not bool((p >= 0).all()):
            raise Failed("a predicted probability is negative or NaN")
        expect_close(p.sum(1), torch.ones(len(p)), what="the sum of predicted probabilities")
    if not torch.equal(loss.predict(logits).argsort(1), logits.argsort(1)):
        raise Failed("predictions do not rank as the logits do")
    if loss.predict(logits.half()).dtype != torch.float32:
        raise Failed("predictions of half precision are not float32")


def confidence(subject: Subject) -> None:
    """Catch a wrong ``for_cosines``: whether logits in -1 to 1 can be confident without a scale."""
    subject.require_method("predict")
    cosines = 2 * torch.eye(NUM_CLASSES) - 1
    highest = subject.build().predict(cosines).amax(1).min().item()
    if subject.fact("for_cosines") != (highest > CONFIDENT):
        raise Failed(
            f"predicts a class of cosine 1 among others of -1 with {highest:.3g}, "
            f"where for_cosines is {subject.fact('for_cosines')}"
        )


def array_likes(subject: Subject) -> None:
    """Catch class counts or weights that must be a tensor: a list or an array is as good."""
    batch = random_batch()
    expected = subject.value(subject.weighed(), batch)
    kinds: list[Callable[..., Any]] = [list, *_of_numpy()]
    for kind in kinds:
        loss = subject.build(as_array=kind)
        if subject.takes_weight:
            loss.set_weight(kind(WEIGHT))
        what = f"the loss of class counts or weights in a {kind.__name__}"
        expect_close(subject.value(loss, batch), expected, what=what)


def _of_numpy() -> list[Callable[..., Any]]:
    """Return the constructor of NumPy's arrays, where there is NumPy."""
    return [importlib.import_module("numpy").array] if importlib.util.find_spec("numpy") else []


def wrong_lengths(subject: Subject) -> None:
    """Catch more or fewer class counts or weights than classes being accepted."""
    if not subject.takes_weight and "class_counts" not in subject.parameters:
        raise NotApplicable("takes neither class counts nor weights")
    batch = random_batch()._replace(targets=torch.arange(6) % 2)
    for length in (NUM_CLASSES - 1, NUM_CLASSES + 1):
        for what, make in (("counts", _of_counts), ("weights", _of_weights)):
            try:
                subject.value(make(subject, length), batch)
            except (ValueError, NotApplicable):
                continue
            raise Failed(f"{length} class {what} for {NUM_CLASSES} classes are no ValueError")


def _of_counts(subject: Subject, length: int) -> Loss:
    if "class_counts" not in subject.parameters:
        raise NotApplicable("does not know class counts")
    return subject.build(counts=(7,) * length)


def _of_weights(subject: Subject, length: int) -> Loss:
    subject.require_weight()
    loss = subject.build()
    loss.set_weight([1.0] * length)
    return loss
