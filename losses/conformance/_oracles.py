"""Slow oracles: each loss written a second time, on plain Python numbers, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch

OLD_CLASSES = (0, 1)
SEED = 0  # of torch's global generator, under which a loss that draws is called


class Rows(NamedTuple):
    """A batch as plain numbers: logits row by row, labels, and per class weights and counts.

    The keys are those that the loss was built with, beside its defaults.
    """

    logits: list[list[float]]
    labels: list[int]
    weight: list[float]
    counts: list[int]
    features: list[list[float]]
    teacher_logits: list[list[float]]
    keys: Mapping[str, Any]


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


def vector_scaling(loss: Any, rows: Rows) -> float:
    """-w_y log p_y of (n_c / n_max)^gamma x_c + log n_c, at the default tau of 1."""
    del loss
    factors = [(n / max(rows.counts)) ** rows.keys.get("gamma", 0.3) for n in rows.counts]
    scaled = [[f * v for f, v in zip(factors, x, strict=True)] for x in rows.logits]
    return balanced_softmax(None, rows._replace(logits=scaled))


def balanced_binary_cross_entropy(loss: Any, rows: Rows) -> float:
    """Binary cross-entropy of x_c + log(n_c / (n - n_c)), at the default tau of 1."""
    odds = [math.log(n / (sum(rows.counts) - n)) for n in rows.counts]
    shifted = [[v + o for v, o in zip(x, odds, strict=True)] for x in rows.logits]
    return binary_cross_entropy(loss, rows._replace(logits=shifted))


def seesaw(loss: Any, rows: Rows) -> float:
    """-w_y log(e^x_y / (e^x_y + sum_(c != y) M_yc C_yc e^x_c))."""

    def term(x: list[float], y: int) -> float:
        p = [math.exp(v) for v in _log_softmax(x)]
        total = 0.0
        for c, v in enumerate(x):
            mitigation = min(1.0, rows.counts[c] / rows.counts[y]) ** loss.p
            compensation = max(1.0, p[c] / p[y]) ** loss.q
            total += math.exp(v) * (1.0 if c == y else mitigation * compensation)
        return -math.log(math.exp(x[y]) / total)

    return _mean(rows, term)


def equalization(loss: Any, rows: Rows) -> float:
    """-w_y log(e^x_y / sum_c e^x_c) without the rare classes c != y."""
    mean = sum(rows.counts) / len(rows.counts)

    def term(x: list[float], y: int) -> float:
        kept = [c == y or n >= loss.tail_share * mean for c, n in enumerate(rows.counts)]
        total = sum(math.exp(v) for v, k in zip(x, kept, strict=True) if k)
        return -math.log(math.exp(x[y]) / total)

    return _mean(rows, term)


def lade(loss: Any, rows: Rows) -> float:
    """Balanced softmax plus alpha sum_c prior_c (-mean x_c of class c + D_c + penalty D_c^2)."""
    prior = [n / sum(rows.counts) for n in rows.counts]
    total = balanced_softmax(loss, rows)
    for c, share in enumerate(prior):
        pairs = [(x[c], y) for x, y in zip(rows.logits, rows.labels, strict=True)]
        own = [v for v, y in pairs if y == c]
        balanced = [math.exp(v) / (len(prior) * prior[y]) for v, y in pairs]
        level = math.log(sum(balanced) / len(balanced))
        mean = sum(own) / max(len(own), 1)
        total += loss.alpha * share * (level + loss.penalty * level**2 - mean)
    return total


def gaussian_clouded(loss: Any, rows: Rows) -> float:
    """-w_y log p_y of s (x_c - noise cloud_c |e|), e as the suite's seed draws it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        shape = (len(rows.logits), len(rows.counts))
        draws = torch.randn(shape, dtype=torch.float64).tolist()
    most, least = max(rows.counts), min(rows.counts)
    clouds = [math.log(most / n) / math.log(most / least) for n in rows.counts]
    clouded = [
        [
            loss.scale * (v - loss.noise * cloud * min(abs(e) / 3, 1))
            for v, cloud, e in zip(x, clouds, drawn, strict=True)
        ]
        for x, drawn in zip(rows.logits, draws, strict=True)
    ]
    return cross_entropy(loss, rows._replace(logits=clouded))


def label_aware_smoothing(loss: Any, rows: Rows) -> float:
    """-w_y ((1 - s_y) log p_y + s_y times the mean log p_c of the others), s from 0.4 to 0.1."""
    del loss
    low, high = min(rows.counts), max(rows.counts)

    def term(x: list[float], y: int) -> float:
        log_p = _log_softmax(x)
        share = 0.1 + 0.3 * math.sin(math.pi / 2 * (rows.counts[y] - low) / (high - low))
        return -(1 - share) * log_p[y] - share * (sum(log_p) - log_p[y]) / (len(x) - 1)

    return _mean(rows, term)


def asymmetric(loss: Any, rows: Rows) -> float:
    """-w_y ((1 - p)^g+ log p, and q^g- log(1 - q) for the others, q = max(p - m, 0)) over C."""

    def term(x: list[float], y: int) -> float:
        total = 0.0
        for c, v in enumerate(x):
            p = 1 / (1 + math.exp(-v))
            q = max(p - loss.margin, 0)
            positive = (1 - p) ** loss.gamma_positive * math.log(p)
            total -= positive if c == y else q**loss.gamma_negative * math.log(1 - q)
        return total / len(x)

    return _mean(rows, term)


def poly(loss: Any, rows: Rows) -> float:
    """w_y ((1 - p_y)^gamma (-log p_y) + epsilon (1 - p_y)^(gamma + 1))."""

    def term(x: list[float], y: int) -> float:
        log_p = _log_softmax(x)[y]
        return float(
            _focal(log_p, loss.gamma) + loss.epsilon * (1 - math.exp(log_p)) ** (loss.gamma + 1)
        )

    return _mean(rows, term)


def distillation(loss: Any, rows: Rows) -> float:
    """w_y (-log p_y + 10 times the mean binary cross-entropy over the old classes, softened)."""
    total = 0.0
    for x, y, teacher in zip(rows.logits, rows.labels, rows.teacher_logits, strict=True):
        student = [math.exp(v) for v in _log_softmax([x[c] / 2 for c in OLD_CLASSES])]
        wanted = [math.exp(v) for v in _log_softmax([teacher[c] / 2 for c in OLD_CLASSES])]
        tasks = [
            q * math.log(p) + (1 - q) * math.log(1 - p)
            for p, q in zip(student, wanted, strict=True)
        ]
        distilled = -sum(tasks) / len(tasks)
        total += rows.weight[y] * (-_log_softmax(x)[y] + loss.distill_weight * distilled)
    return total / len(rows.labels)


def tversky(loss: Any, rows: Rows) -> float:
    """1 - (TP + s) / (TP + alpha FP + beta FN + s), over the classes that are there."""
    return _overlap_loss(rows, false=loss.alpha, missed=loss.beta, smooth=loss.smooth)


def dice(loss: Any, rows: Rows) -> float:
    """Its share of 1 - (2 TP + s) / (2 TP + FP + FN + s), the rest focal loss."""
    # Halved above and below the line.
    overlap = _overlap_loss(rows, false=0.5, missed=0.5, smooth=loss.smooth / 2)
    return float(loss.ratio * overlap + (1 - loss.ratio) * softmax_focal(loss, rows))


def _overlap_loss(rows: Rows, *, false: float, missed: float, smooth: float) -> float:
    values = []
    for c in sorted(set(rows.labels)):
        p = [math.exp(_log_softmax(x)[c]) for x in rows.logits]
        both = sum(v for v, y in zip(p, rows.labels, strict=True) if y == c)
        wrong = sum(v for v, y in zip(p, rows.labels, strict=True) if y != c)
        left = sum(1 - v for v, y in zip(p, rows.labels, strict=True) if y == c)
        ratio = (both + smooth) / (both + false * wrong + missed * left + smooth)
        values.append(rows.weight[c] * (1 - ratio))
    return sum(values) / len(values)


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
