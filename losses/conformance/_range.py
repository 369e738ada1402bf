"""Large logits and small precisions."""

from __future__ import annotations

import torch

from ._subject import (
    Failed,
    Subject,
    at,
    expect_close,
    expect_finite,
    kinds_of_targets,
    random_batch,
)
from ._variants import at_every_key

EXTREMES = (0.0, 50.0, -50.0, 100.0, -100.0, 1e4, -1e4)
MARGINS = (10.0, 30.0, 100.0, 200.0)
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


@at_every_key
def extreme_logits(subject: Subject) -> None:
    """Catch infinities and NaN at logits of 50, 100 and 10,000, likeliest for gamma in 0 to 1."""
    pairs = torch.cartesian_prod(torch.tensor(EXTREMES), torch.tensor(EXTREMES))
    batch = random_batch(len(pairs))
    batch.logits.zero_()[:, :2] = pairs
    labels = batch._replace(targets=torch.zeros_like(batch.targets))
    for keys in subject.gammas():
        loss = subject.build(keys)
        for dtype in PRECISIONS:
            for given in kinds_of_targets(subject, labels):
                value, gradient = subject.slope(loss, given.to(dtype))
                expect_finite(value, gradient, where=f"at large logits in {dtype}{at(keys)}")


def worst_mistakes(subject: Subject) -> None:
    """Catch a loss that stops growing or a gradient that dies where the model is most wrong."""
    loss = subject.build()
    for output, sign, who in ((0, -1, "the true class"), (1, 1, "a wrong class")):
        values, slopes = [], []
        for margin in MARGINS:
            batch = random_batch(1)
            batch.logits.zero_()[0, output] = sign * margin
            value, gradient = subject.slope(loss, batch)
            expect_finite(value, gradient, where=f"where {who} has logit {sign * margin:g}")
            values.append(value.item())
            slopes.append(float(gradient[0, output].abs()))
        where = f"where {who} has logit {', '.join(f'{sign * m:g}' for m in MARGINS)}"
        if values != sorted(set(values)):
            raise Failed(f"the loss is {_numbers(values)} {where}")
        if min(slopes) < 0.1 * slopes[0]:
            raise Failed(f"its gradient is {_numbers(slopes)} {where}")


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


@at_every_key
def half_precision(subject: Subject) -> None:
    """Catch sums in half precision: it must compute in float32, and keep float64."""
    loss = subject.weighed()
    kinds = ((torch.float16, torch.float32), (torch.bfloat16, torch.float32))
    for given, computed in (*kinds, (torch.float64, torch.float64)):
        batch = random_batch().to(given)
        value = subject.value(loss, batch)
        if value.dtype != computed:
            raise Failed(f"{given} logits give a loss in {value.dtype}, not {computed}")
        expect_close(value, subject.value(loss, batch.to(computed)), what=f"the loss in {given}")


@at_every_key
def autocast(subject: Subject) -> None:
    """Catch a matrix product or einsum that autocast runs in bfloat16."""
    loss = subject.weighed()
    for batch in kinds_of_targets(subject, random_batch()):
        expected = subject.value(loss, batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = subject.value(loss, batch)
        expect_close(value, expected, what="the loss under autocast", tolerance=0.0)
