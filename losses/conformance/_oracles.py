"""Slow oracles: each loss written a second time, on plain Python numbers, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast


class Rows(NamedTuple):
    """A batch as plain numbers: logits row by row, labels, and per class weights and counts."""

    logits: list[list[float]]
    labels: list[int]
    weight: list[float]
    counts: list[int]
    features: list[list[float]]
    teacher_logits: list[list[float]]


Oracle = Callable[[Any, Rows], float]


def oracle_of(component: type) -> Oracle | None:
    """Return the oracle of a loss class: its own method ``oracle(self, rows)``, or one from here.

    One from here has the name of the loss's file; a subclass inherits it.
    """
    own = getattr(component, "oracle", None)
    if own is not None:
        return cast(Oracle, own)
    package = __name__.rpartition(".conformance.")[0]
    for base in component.__mro__:
        folder, _, file = base.__module__.rpartition(".")
        if folder == package and not file.startswith("_"):
            return cast("Oracle | None", globals().get(file))
    return None


def cross_entropy(loss: Any, rows: Rows) -> float:
    """-w_y log p_y."""
    del loss
    return _mean(rows, lambda x, y: -_log_softmax(x)[y])


def softmax_focal(loss: Any, rows: Rows) -> float:
    """-w_y (1 - p_y)^gamma log p_y."""
    return _mean(rows, lambda x, y: _focal(_log_softmax(x)[y], loss.gamma))


def binary_cross_entropy(loss: Any, rows: Rows) -> float:
    """-w_y sum_c log p_c, or log(1 - p_c) for the other classes, over C."""
    del loss
    return _mean(rows, lambda x, y: sum(-_log_sigmoids(x, y)[c] for c in range(len(x))) / len(x))


def sigmoid_focal(loss: Any, rows: Rows) -> float:
    """The same, each term times (1 - p_t)^gamma."""
    return _mean(
        rows, lambda x, y: sum(_focal(z, loss.gamma) for z in _log_sigmoids(x, y)) / len(x)
    )


def balanced_softmax(loss: Any, rows: Rows) -> float:
    """-w_y log(n_y exp(x_y) / sum_c n_c exp(x_c))."""
    del loss

    def term(x: list[float], y: int) -> float:
        masses = [n * math.exp(v) for n, v in zip(rows.counts, x, strict=True)]
        return -math.log(masses[y] / sum(masses))

    return _mean(rows, term)


def logit_adjustment(loss: Any, rows: Rows) -> float:
    """The same at the default tau of 1."""
    return balanced_softmax(loss, rows)


def ldam(loss: Any, rows: Rows) -> float:
    """-w_y log p_y of s (x - m_y at y), m_c = 0.5 (n_min / n_c)^(1/4)."""

    def term(x: list[float], y: int) -> float:
        margin = 0.5 * (min(rows.counts) / rows.counts[y]) ** 0.25
        return -_log_softmax([loss.scale * (v - margin * (c == y)) for c, v in enumerate(x)])[y]

    return _mean(rows, term)


def influence_balanced(loss: Any, rows: Rows) -> float:
    """w_y FL_y alpha / (sum_c |p_c - t_c| sum_d |h_d| + eps)."""
    total = 0.0
    for x, y, h in zip(rows.logits, rows.labels, rows.features, strict=True):
        p = [math.exp(v) for v in _log_softmax(x)]
        pull = sum(abs(v - (c == y)) for c, v in enumerate(p)) * sum(abs(v) for v in h)
        focal = _focal(math.log(p[y]), loss.gamma)
        total += rows.weight[y] * focal * loss.alpha / (pull + loss.eps)
    return total / len(rows.labels)


def tversky(loss: Any, rows: Rows) -> float:
    """1 - (TP + s) / (TP + alpha FP + beta FN + s), over the classes that are there."""
    values = []
    for c in sorted(set(rows.labels)):
        both, false, missed = _overlap(rows, c)
        ratio = (both + loss.smooth) / (
            both + loss.alpha * false + loss.beta * missed + loss.smooth
        )
        values.append(rows.weight[c] * (1 - ratio))
    return sum(values) / len(values)


def dice(loss: Any, rows: Rows) -> float:
    """Its share of 1 - (2 TP + s) / (2 TP + FP + FN + s), the rest focal loss."""
    values = []
    for c in sorted(set(rows.labels)):
        both, false, missed = _overlap(rows, c)
        ratio = (2 * both + loss.smooth) / (2 * both + false + missed + loss.smooth)
        values.append(rows.weight[c] * (1 - ratio))
    overlap = sum(values) / len(values)
    return float(loss.ratio * overlap + (1 - loss.ratio) * softmax_focal(loss, rows))


def _overlap(rows: Rows, c: int) -> tuple[float, float, float]:
    """Return sums of p t, p (1 - t) and (1 - p) t of class c."""
    p = [math.exp(_log_softmax(x)[c]) for x in rows.logits]
    t = [float(y == c) for y in rows.labels]
    pairs = list(zip(p, t, strict=True))
    return (
        sum(a * b for a, b in pairs),
        sum(a * (1 - b) for a, b in pairs),
        sum((1 - a) * b for a, b in pairs),
    )


def _mean(rows: Rows, term: Callable[[list[float], int], float]) -> float:
    pairs = zip(rows.logits, rows.labels, strict=True)
    return sum(rows.weight[y] * term(x, y) for x, y in pairs) / len(rows.labels)


def _focal(log_p: float, gamma: float) -> float:
    return float(-((1 - math.exp(log_p)) ** gamma) * log_p)


def _log_softmax(x: list[float]) -> list[float]:
    largest = max(x)
    total = math.log(sum(math.exp(v - largest) for v in x)) + largest
    return [v - total for v in x]


def _log_sigmoids(x: list[float], y: int) -> list[float]:
    """Return log p_t of each output: of p for class y, of 1 - p for the others."""
    return [-math.log1p(math.exp(-v if c == y else v)) for c, v in enumerate(x)]
