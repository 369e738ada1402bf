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

    The keys are all that the loss has, its defaults included.
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
    """-w_y log p_y, or with s the share that is smoothed (1 - s) of it and -s w_y mean log p_c."""
    return softmax_focal(loss, rows._replace(keys={**rows.keys, "gamma": 0.0}))


def softmax_focal(loss: Any, rows: Rows) -> float:
    """-a_y w_y (1 - p_y)^gamma log p_y, smoothed likewise."""
    del loss
    keys = {"scale": 1.0, "label_smoothing": 0.0, "smoothing_weight": "sample", **rows.keys}
    num_classes = len(rows.weight)
    alpha = keys.get("alpha") or [1.0] * num_classes

    def part(log_p: float, of: int) -> float:
        power = rows.weight[of] if keys.get("probability") == "weighted" else 1.0
        return float(
            -alpha[of] * rows.weight[of] * (1 - math.exp(power * log_p)) ** keys["gamma"] * log_p
        )

    values = []
    for x, y in zip(rows.logits, rows.labels, strict=True):
        log_p = _log_softmax(x)
        of = range(num_classes) if keys["smoothing_weight"] == "class" else [y] * num_classes
        even = sum(part(v, c) for v, c in zip(log_p, of, strict=True)) / num_classes
        share = keys["label_smoothing"]
        values.append(keys["scale"] * ((1 - share) * part(log_p[y], y) + share * even))
    return _mean_of(rows, values)


def binary_cross_entropy(loss: Any, rows: Rows) -> float:
    """-w_y sum_c log p_c, of the true class times its factor, or log(1 - p_c) for the others."""
    del loss
    factors = rows.keys.get("pos_weight") or [1.0] * len(rows.weight)

    def term(x: list[float], y: int) -> float:
        return -sum(z * (factors[c] if c == y else 1) for c, z in enumerate(_log_sigmoids(x, y)))

    return _mean(rows, term)


def sigmoid_focal(loss: Any, rows: Rows) -> float:
    """-w_y sum_c alpha_t (1 - p_t)^gamma log p_t."""

    def term(x: list[float], y: int) -> float:
        alphas = (1.0, 1.0) if loss.alpha is None else (loss.alpha, 1 - loss.alpha)
        return sum(
            alphas[c != y] * _focal(z, loss.gamma) for c, z in enumerate(_log_sigmoids(x, y))
        )

    return _mean(rows, term)


def balanced_softmax(loss: Any, rows: Rows) -> float:
    """-w_y log(n_y exp(x_y) / sum_c n_c exp(x_c))."""
    return logit_adjustment(loss, rows._replace(keys={**rows.keys, "tau": 1.0}))


def logit_adjustment(loss: Any, rows: Rows) -> float:
    """-w_y log(n_y^tau exp(x_y) / sum_c n_c^tau exp(x_c))."""
    del loss

    def term(x: list[float], y: int) -> float:
        pairs = zip(rows.counts, x, strict=True)
        masses = [n ** rows.keys["tau"] * math.exp(v) for n, v in pairs]
        return -math.log(masses[y] / sum(masses))

    return _mean(rows, term)


def ldam(loss: Any, rows: Rows) -> float:
    """-w_y log p_y of s (x - m_y at y), m_c = m (n_min / n_c)^(1/4)."""

    def term(x: list[float], y: int) -> float:
        margin = rows.keys["max_margin"] * (min(rows.counts) / rows.counts[y]) ** 0.25
        return -_log_softmax([loss.scale * (v - margin * (c == y)) for c, v in enumerate(x)])[y]

    return _mean(rows, term)


def influence_balanced(loss: Any, rows: Rows) -> float:
    """w_y FL_y alpha / (sum_c |p_c - t_c| sum_d |h_d| + eps); FL of w_y log p_y if weighted."""
    total = 0.0
    for x, y, h in zip(rows.logits, rows.labels, rows.features, strict=True):
        p = [math.exp(v) for v in _log_softmax(x)]
        pull = sum(abs(v - (c == y)) for c, v in enumerate(p)) * sum(abs(v) for v in h)
        if loss.weighted_likelihood:
            focal = _focal(rows.weight[y] * math.log(p[y]), loss.gamma)
        else:
            focal = rows.weight[y] * _focal(math.log(p[y]), loss.gamma)
        total += focal * loss.alpha / (pull + loss.eps)
    return total / len(rows.labels)


def vector_scaling(loss: Any, rows: Rows) -> float:
    """-w_y log p_y of (n_c / n_max)^gamma x_c + tau log n_c."""
    factors = [(n / max(rows.counts)) ** rows.keys["gamma"] for n in rows.counts]
    scaled = [[f * v for f, v in zip(factors, x, strict=True)] for x in rows.logits]
    return logit_adjustment(loss, rows._replace(logits=scaled))


def balanced_binary_cross_entropy(loss: Any, rows: Rows) -> float:
    """Binary cross-entropy of x_c + tau log(n_c / (n - n_c))."""
    odds = [rows.keys["tau"] * math.log(n / (sum(rows.counts) - n)) for n in rows.counts]
    shifted = [[v + o for v, o in zip(x, odds, strict=True)] for x in rows.logits]
    return binary_cross_entropy(loss, rows._replace(logits=shifted))


def seesaw(loss: Any, rows: Rows) -> float:
    """-w_y log(e^x_y / (e^x_y + sum_(c != y) M_yc C_yc e^x_c))."""

    def term(x: list[float], y: int) -> float:
        p = [math.exp(v) for v in _log_softmax(x)]
        total = 0.0
        for c, v in enumerate(x):
            mitigation = min(1.0, rows.counts[c] / rows.counts[y]) ** loss.p
            compensation = max(1.0, p[c] / max(p[y], loss.eps)) ** loss.q
            total += math.exp(v) * (1.0 if c == y else mitigation * compensation)
        return -math.log(math.exp(x[y]) / total)

    return _mean(rows, term)


def equalization(loss: Any, rows: Rows) -> float:
    """-w_y log(e^x_y / sum_c e^x_c) without the rare classes c != y that the suite's seed draws."""
    mean = sum(rows.counts) / len(rows.counts)
    drawn = _drawn(torch.rand, rows, dtype=torch.float32)
    values = []
    for x, y, draws in zip(rows.logits, rows.labels, drawn, strict=True):
        total = 0.0
        for c, (v, draw) in enumerate(zip(x, draws, strict=True)):
            is_spared = rows.counts[c] < loss.tail_share * mean and draw < loss.chance
            total += math.exp(v) * (c == y or not is_spared)
        values.append(-rows.weight[y] * math.log(math.exp(x[y]) / total))
    return _mean_of(rows, values)


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
    most, least = max(rows.counts), min(rows.counts)
    clouds = [math.log(most / n) / math.log(most / least) for n in rows.counts]
    clouded = [
        [
            loss.scale * (v - loss.noise * cloud * min(abs(e) / 3, 1))
            for v, cloud, e in zip(x, clouds, drawn, strict=True)
        ]
        for x, drawn in zip(rows.logits, _drawn(torch.randn, rows), strict=True)
    ]
    keys = {"normalize": rows.keys["normalize"]}
    return cross_entropy(loss, rows._replace(logits=clouded, keys=keys))


def label_aware_smoothing(loss: Any, rows: Rows) -> float:
    """-w_y ((1 - s_y) log p_y + s_y times the mean log p_c of the others), s by the count."""
    del loss
    low, high = min(rows.counts), max(rows.counts)
    head, tail = rows.keys["smooth_head"], rows.keys["smooth_tail"]

    def term(x: list[float], y: int) -> float:
        log_p = _log_softmax(x)
        place = (rows.counts[y] - low) / (high - low)
        height = {
            "concave": math.sin(math.pi / 2 * place),
            "linear": place,
            "convex": 1 + math.sin(3 * math.pi / 2 + math.pi / 2 * place),
        }[rows.keys["shape"]]
        share = tail + (head - tail) * height
        return -(1 - share) * log_p[y] - share * (sum(log_p) - log_p[y]) / (len(x) - 1)

    return _mean(rows, term)


def class_conditional_smoothing(loss: Any, rows: Rows) -> float:
    """-w_y ((1 - s_y) log p_y + s_y times the mean of all log p_c), s_y falling with the count."""
    del loss
    strongest, power = rows.keys["smoothing"], rows.keys["power"]

    def term(x: list[float], y: int) -> float:
        log_p = _log_softmax(x)
        share = strongest / (rows.counts[y] / min(rows.counts)) ** power
        return -(1 - share) * log_p[y] - share * sum(log_p) / len(x)

    return _mean(rows, term)


def asymmetric(loss: Any, rows: Rows) -> float:
    """-w_y ((1 - p)^g+ log p, and q^g- log(1 - q) for the others, q = max(p - m, 0))."""

    def term(x: list[float], y: int) -> float:
        total = 0.0
        for c, v in enumerate(x):
            p = 1 / (1 + math.exp(-v))
            q = max(p - loss.margin, 0)
            positive = (1 - p) ** loss.gamma_positive * math.log(p)
            total -= positive if c == y else q**loss.gamma_negative * math.log(1 - q)
        return total

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
    """w_y (-log p_y + D times its weight), D between the softened old classes."""
    hot = loss.temperature
    cool = hot if loss.teacher_temperature is None else loss.teacher_temperature
    total = 0.0
    for x, y, teacher in zip(rows.logits, rows.labels, rows.teacher_logits, strict=True):
        student = [math.exp(v) for v in _log_softmax([x[c] / hot for c in OLD_CLASSES])]
        wanted = [math.exp(v) for v in _log_softmax([teacher[c] / cool for c in OLD_CLASSES])]
        pairs = list(zip(student, wanted, strict=True))
        distilled = hot**2 * sum(q * math.log(q / p) for p, q in pairs)
        if loss.divergence == "binary_cross_entropy":
            tasks = [q * math.log(p) + (1 - q) * math.log(1 - p) for p, q in pairs]
            distilled = -sum(tasks) / len(tasks)
        total += rows.weight[y] * (-_log_softmax(x)[y] + loss.distill_weight * distilled)
    return total / len(rows.labels)


def tversky(loss: Any, rows: Rows) -> float:
    """1 - (TP + s) / (TP + alpha FP + beta FN + s), over the classes that are there."""
    overlap = _overlap_loss(rows, false=loss.alpha, missed=loss.beta, smooth=loss.smooth)
    rest = softmax_focal(loss, rows._replace(keys={"gamma": loss.gamma}))
    return float(loss.ratio * overlap + (1 - loss.ratio) * rest)


def dice(loss: Any, rows: Rows) -> float:
    """Its share of 1 - (2 TP + s) / (2 TP + FP + FN + s), the rest focal loss."""
    # Halved above and below the line.
    overlap = _overlap_loss(rows, false=0.5, missed=0.5, smooth=loss.smooth / 2)
    rest = softmax_focal(loss, rows._replace(keys={"gamma": loss.gamma}))
    return float(loss.ratio * overlap + (1 - loss.ratio) * rest)


def _overlap_loss(rows: Rows, *, false: float, missed: float, smooth: float) -> float:
    if rows.keys["over"] == "image":
        parts = [
            rows._replace(logits=[x], labels=[y], keys={**rows.keys, "over": "batch"})
            for x, y in zip(rows.logits, rows.labels, strict=True)
        ]
        losses = [_overlap_loss(p, false=false, missed=missed, smooth=smooth) for p in parts]
        return sum(losses) / len(losses)
    values = []
    for c in sorted(set(rows.labels)):
        p = [math.exp(_log_softmax(x)[c]) for x in rows.logits]
        both = sum(v for v, y in zip(p, rows.labels, strict=True) if y == c)
        wrong = sum(v for v, y in zip(p, rows.labels, strict=True) if y != c)
        left = sum(1 - v for v, y in zip(p, rows.labels, strict=True) if y == c)
        below = both + false * wrong + missed * left
        if rows.keys.get("squared"):
            below = (sum(v * v for v in p) + rows.labels.count(c)) / 2
        values.append(rows.weight[c] * (1 - (both + smooth) / (below + smooth)))
    return sum(values) / len(values)


def _mean(rows: Rows, term: Callable[[list[float], int], float]) -> float:
    pairs = zip(rows.logits, rows.labels, strict=True)
    return _mean_of(rows, [rows.weight[y] * term(x, y) for x, y in pairs])


def _mean_of(rows: Rows, values: list[float]) -> float:
    """Return the sum of the losses of samples over what ``normalize`` says."""
    divisors = {
        "weights": sum(rows.weight[y] for y in rows.labels),
        "elements": len(values) * len(rows.weight),
    }
    return sum(values) / divisors.get(str(rows.keys.get("normalize")), len(values))


def _drawn(
    draw: Callable[..., torch.Tensor], rows: Rows, *, dtype: torch.dtype = torch.float64
) -> list[list[float]]:
    """Return a number for every logit, as the suite's seed draws it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        numbers: list[list[float]] = draw(
            (len(rows.logits), len(rows.counts)), dtype=dtype
        ).tolist()
    return numbers


def _focal(log_p: float, gamma: float) -> float:
    return float(-((1 - math.exp(log_p)) ** gamma) * log_p)


def _log_softmax(x: list[float]) -> list[float]:
    largest = max(x)
    total = math.log(sum(math.exp(v - largest) for v in x)) + largest
    return [v - total for v in x]


def _log_sigmoids(x: list[float], y: int) -> list[float]:
    """Return log p_t of each output: of p for class y, of 1 - p for the others."""
    return [-math.log1p(math.exp(-v if c == y else v)) for c, v in enumerate(x)]
