"""Which keys change a loss, and where they do not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ._subject import Batch, Failed, NotApplicable, Subject, at, kinds_of_targets, random_batch
from ._variants import alternatives, defaults, holds

NAMED = {"weight": "without class weights", "targets": "on labels", "dense": "of logits (N, C)"}


def idle_keys(subject: Subject) -> None:
    """Catch a key that is declared ``idle`` but has an effect: a run would wrongly refuse it."""
    if not subject.fact("idle"):
        raise NotApplicable("states none")
    known = defaults(subject)
    for conditions, keys in subject.fact("idle"):
        base = {k: known.get(str(v), v) for k, v in conditions.items() if k in known}
        for is_weighed, batch in _circumstances(subject, with_dense=subject.fact("dense")):
            if not holds(
                conditions,
                {**known, **base},
                is_weighed=is_weighed,
                is_soft=batch.targets.is_floating_point(),
                is_dense=batch.logits.ndim > 2,
            ):
                continue
            for key in keys:
                for value in alternatives(subject, key):
                    if _differ(subject, base, {key: value}, batch, is_weighed=is_weighed):
                        raise Failed(f"{key}={value} changes the loss{_where(conditions)}")


def effective_keys(subject: Subject) -> None:
    """Catch a key that has no effect and is not declared ``idle``."""
    known = defaults(subject)
    if not known:
        raise NotApplicable("has no keys")
    bases = [{}, *({k: value} for k in known for value in alternatives(subject, k))]
    for base, (is_weighed, batch) in itertools.product(bases, _circumstances(subject)):
        is_soft = batch.targets.is_floating_point()
        keys = {**known, **base}
        idle = {
            key
            for conditions, others in subject.fact("idle")
            if holds(conditions, keys, is_weighed=is_weighed, is_soft=is_soft)
            for key in others
        }
        for key in known.keys() - idle - base.keys():
            tried = [{key: value} for value in alternatives(subject, key)]
            if tried and not any(
                _differ(subject, base, other, batch, is_weighed=is_weighed) for other in tried
            ):
                where = "" if is_soft or not subject.fact("takes_soft_targets") else " on labels"
                where += "" if is_weighed or not subject.takes_weight else " without class weights"
                raise Failed(f"{key} changes nothing{at(base)}{where}: state it in idle")


def _circumstances(subject: Subject, *, with_dense: bool = False) -> Iterator[tuple[bool, Batch]]:
    """Yield labels, soft targets and labels of pixels, with class weights and without."""
    batches = kinds_of_targets(subject, random_batch(7, dtype=torch.float64))
    if with_dense:
        batches.append(random_batch(3, dtype=torch.float64, pixels=(3, 2)))
    yield from itertools.product([True, False] if subject.takes_weight else [False], batches)


def _differ(
    subject: Subject,
    base: Mapping[str, Any],
    other: Mapping[str, Any],
    batch: Batch,
    *,
    is_weighed: bool,
) -> bool:
    """Tell whether other keys change the value of a batch, or the gradient."""
    make = subject.weighed if is_weighed else subject.build
    pair = [subject.slope(make(keys), batch) for keys in (base, {**base, **other})]
    return any(
        not torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
        for found, expected in zip(*pair, strict=True)
    )


def _where(conditions: Mapping[str, Any]) -> str:
    keys = {name: value for name, value in conditions.items() if name not in NAMED}
    return at(keys) + "".join(f" {NAMED[name]}" for name in conditions if name in NAMED)
