"""A loss under examination: how it is found, built and called, and how a check says no."""

from __future__ import annotations

import importlib
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from .. import Loss, build, names
from ._oracles import OLD_CLASSES, SEED

NUM_CLASSES = 4
COUNTS = (100, 40, 20, 5)
WEIGHT = (0.3, 0.7, 1.1, 1.9)
GAMMAS = (0.0, 0.3, 0.5, 1.0, 2.0, 5.0)
NUM_FEATURES = 8


class Failed(Exception):  # noqa: N818 - what it says reads "failed: ..."
    """The loss does not keep what the check is about; the message is one sentence."""


class NotApplicable(Exception):  # noqa: N818 - it is no error
    """What the check is about has no meaning for the loss."""


class SubjectError(ValueError):
    """What was to be examined cannot be found or built; the message is one line."""


class Batch(NamedTuple):
    """What a loss is called with; features and teacher are given to those that need them."""

    logits: Tensor
    targets: Tensor
    features: Tensor
    teacher_logits: Tensor

    def take(self, samples: Tensor | slice) -> Batch:
        """Return the batch of some of the samples."""
        return Batch(*(part[samples] for part in self))

    def to(self, dtype: torch.dtype) -> Batch:
        """Return the batch in another precision; labels stay as they are."""
        return Batch(*(part.to(dtype) if part.is_floating_point() else part for part in self))


def random_batch(
    size: int = 6,
    *,
    dtype: torch.dtype = torch.float32,
    num_outputs: int = NUM_CLASSES,
    pixels: tuple[int, ...] = (),
    seed: int = 0,
) -> Batch:
    """Return a batch of random logits (size, num_outputs, *pixels) with labels of all classes."""
    generator = torch.Generator().manual_seed(seed)
    shape = (size, num_outputs, *pixels)
    num_labels = size * torch.Size(pixels).numel()
    return Batch(
        logits=torch.randn(shape, generator=generator, dtype=dtype),
        targets=(torch.arange(num_labels) % max(num_outputs, 2)).view(size, *pixels),
        features=torch.randn(size, NUM_FEATURES, generator=generator, dtype=dtype),
        teacher_logits=torch.randn(shape, generator=generator, dtype=dtype),
    )


def kinds_of_targets(subject: Subject, batch: Batch) -> list[Batch]:
    """Return the batch with labels and, where the loss takes them, with soft targets."""
    if not subject.fact("takes_soft_targets"):
        return [batch]
    soft = random_batch(len(batch.logits), dtype=batch.logits.dtype, seed=4).logits.softmax(1)
    return [batch, batch._replace(targets=soft)]


@dataclass(frozen=True)
class Subject:
    """A loss class, the name that a report gives it, and the keys that it is built with."""

    name: str
    component: type[nn.Module]
    keys: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def fact(self, name: str) -> Any:
        """Return a class fact, `losses.Loss`'s own where the class does not state it."""
        return getattr(self.component, name, getattr(Loss, name))

    def fact_here(self, name: str) -> Any:
        """Return a class fact at the keys that the loss is built with, by ``facts_at``."""
        known = {key: p.default for key, p in self.parameters.items()} | dict(self.keys)
        for keys, facts in self.fact("facts_at"):
            if name in facts and all(known[key] == value for key, value in keys.items()):
                return facts[name]
        return self.fact(name)

    def require(self, fact: str, *, otherwise: str) -> None:
        """Raise `NotApplicable` unless a class fact holds."""
        if not self.fact(fact):
            raise NotApplicable(otherwise)

    def require_method(self, name: str) -> None:
        """Raise `NotApplicable` if the class, being no `losses.Loss`, lacks one of its methods."""
        if not hasattr(self.component, name):
            raise NotApplicable(f"has no {name}")

    def require_weight(self) -> None:
        """Raise `NotApplicable` if the loss takes no class weights."""
        self.require_method("set_weight")
        self.require("takes_weight", otherwise="takes no class weights")

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The arguments of the constructor."""
        return inspect.signature(self.component).parameters

    def gammas(self) -> list[dict[str, object]]:
        """Return a dict of keys for each of `GAMMAS`, all `gamma*` keys alike, [{}] without one."""
        hints = self.hints()
        keys = [name for name in self.parameters if name.startswith("gamma")]
        allowed = [g for g in GAMMAS if all(allows(hints.get(key), g) for key in keys)]
        return [dict.fromkeys(keys, gamma) for gamma in allowed] if keys else [{}]

    def hints(self) -> dict[str, Any]:
        """Return the annotations of the constructor's arguments, {} where they have no meaning."""
        try:
            return typing.get_type_hints(self.component.__init__, include_extras=True)
        except (NameError, TypeError):  # annotations that only a type checker can resolve
            return {}

    def build(
        self,
        keys: Mapping[str, object] | None = None,
        *,
        counts: Sequence[int] = COUNTS,
        old_classes: Sequence[int] = OLD_CLASSES,
        as_array: Callable[..., Any] = torch.tensor,
    ) -> Loss:
        """Make the loss as it is in the last epoch, so that what has a start has started."""
        known = {
            "class_counts": as_array(counts),
            "num_classes": len(counts),
            "old_classes": old_classes,
        }
        facts = {name: value for name, value in known.items() if name in self.parameters}
        loss = cast(Loss, self.component(**facts, **{**self.keys, **(keys or {})}))
        if hasattr(loss, "set_progress"):
            loss.set_progress(9, 10)
        return loss

    def weighed(
        self,
        keys: Mapping[str, object] | None = None,
        *,
        weight: Sequence[float] = WEIGHT,
        counts: Sequence[int] = COUNTS,
        old_classes: Sequence[int] = OLD_CLASSES,
    ) -> Loss:
        """Make the loss with class weights, if it takes any."""
        loss = self.build(keys, counts=counts, old_classes=old_classes)
        if self.takes_weight:
            loss.set_weight(torch.tensor(weight))
        return loss

    @property
    def takes_weight(self) -> bool:
        """Whether class weights can be given to the loss."""
        return hasattr(self.component, "set_weight") and bool(self.fact("takes_weight"))

    def value(self, loss: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        extras = {}
        if self.fact("needs_features"):
            extras["features"] = batch.features
        if self.fact("needs_teacher"):
            extras["teacher_logits"] = batch.teacher_logits
        if not self.fact("draws"):
            return cast(Tensor, loss(batch.logits, batch.targets, **extras))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return cast(Tensor, loss(batch.logits, batch.targets, **extras))

    def total(self, loss: nn.Module, batch: Batch) -> Tensor:
        """Return what the loss of a batch is before it is divided into a mean."""
        value = self.value(loss, batch)
        if not isinstance(loss, Loss):
            return value
        normalizer = loss.normalizer(batch.targets, num_outputs=batch.logits.shape[1])
        return value * loss.divisor(normalizer).to(value)

    def slope(self, loss: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss of a batch and its gradient with respect to the logits."""
        logits = batch.logits.detach().clone(memory_format=torch.preserve_format)
        value = self.value(loss, batch._replace(logits=logits.requires_grad_()))
        (gradient,) = torch.autograd.grad(value, logits)
        return value.detach(), gradient


def allows(hint: object, value: float) -> bool:
    """Tell whether the bounds of an annotation, as annotated_types writes them, allow a value."""
    for bound in typing.get_args(hint)[1:]:
        low, high = getattr(bound, "ge", None), getattr(bound, "le", None)
        above, below = getattr(bound, "gt", None), getattr(bound, "lt", None)
        if (low is not None and value < low) or (high is not None and value > high):
            return False
        if (above is not None and value <= above) or (below is not None and value >= below):
            return False
    return True


def at(keys: Mapping[str, object]) -> str:
    """Return keys as they stand in a sentence.

    >>> at({"gamma": 0.5})
    ' at gamma=0.5'
    """
    return "".join(f" at {key}={value}" for key, value in keys.items())


def in_one_line(error: Exception) -> str:
    """Return what a failed check says; another exception with its type, cut short."""
    text = " ".join(str(error).split())
    if isinstance(error, Failed):
        return text
    return textwrap.shorten(f"{type(error).__name__}: {text}", 200, placeholder=" ...")


def expect_close(
    found: Tensor, expected: Tensor, *, what: str, tolerance: float | None = None
) -> None:
    """Raise `Failed` unless two tensors are equal up to rounding of their type, or a tolerance.

    Args:
        found: What the loss gave.
        expected: Of the same shape and type.
        what: What it is, as the failure's subject.
        tolerance: Relative and absolute.
    """
    if found.shape != expected.shape:
        raise Failed(f"{what} has shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    try:
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    except AssertionError as error:
        if found.ndim == 0:
            given, wanted = told_apart(found.item(), expected.item())
            raise Failed(f"{what} is {given}, not {wanted}") from error
        off = (found - expected).abs().max().item()
        raise Failed(f"{what} differs by up to {off:.3g}") from error


def told_apart(first: float, second: float) -> tuple[str, str]:
    """Return two numbers with as many digits, six at least, as tell them apart.

    >>> told_apart(1.25, 1.250000001)
    ('1.25', '1.250000001')
    """
    for digits in range(6, 17):
        texts = f"{first:.{digits}g}", f"{second:.{digits}g}"
        if texts[0] != texts[1]:
            return texts
    return repr(first), repr(second)


def expect_finite(value: Tensor, gradient: Tensor, *, where: str) -> None:
    """Raise `Failed` unless a loss and its gradient are finite."""
    for what, found in (("the loss", value), ("the gradient", gradient)):
        if not bool(torch.isfinite(found).all()):
            raise Failed(f"{what} is not finite {where}")


def own_subjects() -> Iterator[Subject]:
    """Yield every loss of this package."""
    for name in names():
        yield find_subject(name)


def class_of(name: str) -> type[Loss]:
    """Return the class of a loss of this package."""
    return type(build(name, class_counts=torch.tensor(COUNTS)))


def find_subject(text: str) -> Subject:
    """Return the loss that a command line names: ``softmax_focal`` or ``module:Class``.

    Raises:
        SubjectError: If there is none, or it cannot be built.
    """
    module_name, colon, class_name = text.partition(":")
    if not colon:
        if text not in names():
            raise SubjectError(
                f"no loss is called {text!r}: choose from {', '.join(names())}, or name one of "
                "your own as module:Class"
            )
        return Subject(text, class_of(text))
    try:
        component = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, ValueError) as error:
        raise SubjectError(f"{text}: cannot import {module_name!r} ({error})") from error
    except AttributeError as error:
        raise SubjectError(f"{text}: {module_name} has no {class_name!r}") from error
    if not (inspect.isclass(component) and issubclass(component, nn.Module)):
        raise SubjectError(f"{text}: not a class of torch.nn.Module")
    subject = Subject(text, component)
    try:
        subject.build()
    except Exception as error:
        raise SubjectError(
            f"{text}: cannot be built ({error}); only class_counts, num_classes and old_classes "
            "are given to the constructor, anything else needs a default"
        ) from error
    return subject
