"""Selection rules: which epoch's weights a result is of.

A rule is a class of this file that states a ``name``; nothing else needs to know it. It can then be
named in ``evaluate.rules``, checkpoints keep its weights, and ``summary.json``, the terminal and
``python -m engine.tables --rule`` show its numbers. ``oracle``, the best *test* epoch, is no rule:
it is read off metrics.jsonl and only ever shown beside them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypedDict

from torch import Tensor

from engine.config.calendar import complete_from
from engine.config.metrics import metrics
from engine.config.schema import Config
from engine.config.selection_rules import FINAL
from engine.training.patience import Patience, is_better
from engine.training.summary import Oracle, Scalars

Row = Mapping[str, Any]
Weights = Callable[[], dict[str, Tensor]]


class Kept(TypedDict):
    """What a rule keeps of an epoch (from 1): the number that chose it, and a copy of its weights.

    Checkpoints hold it, one for each rule that has chosen.
    """

    epoch: int
    value: float
    state: dict[str, Tensor]


class Chosen(NamedTuple):
    """Weights that a rule has chosen, and the epoch (from 1) after which they were taken."""

    epoch: int
    weights: dict[str, Tensor]


class HeldOut(NamedTuple):
    """The validation split in a sentence: how many labels it has, and whether it is balanced."""

    num_labels: int
    is_balanced: bool

    def __str__(self) -> str:
        kind = "balanced" if self.is_balanced else "not balanced"
        return f"{self.num_labels} validation labels ({kind})"


class Rule:
    """What chooses the epoch whose weights a result is of.

    Args:
        config: of the run.

    Attributes:
        name: in ``evaluate.rules``, checkpoints, summaries and tables; only real rules have one.
        needs_validation: whether it chooses by the validation split.
        key: what it reads in the lines of metrics.jsonl, such as ``val/nll``; or None.
    """

    name: ClassVar[str]
    needs_validation: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        self.config = config
        self.key: str | None = None

    @property
    def needs_ranking(self) -> bool:
        """Whether every epoch must compute AUROC and average precision for it."""
        known = metrics().get((self.key or "").removeprefix("val/"))
        return known is not None and known.needs == "ranking"

    def update(self, kept: Kept | None, row: Row, *, weights: Weights) -> Kept | None:
        """Return what to keep after an epoch: ``kept``, this epoch with its weights, or nothing.

        Args:
            kept: what it has kept so far, None for nothing.
            row: the epoch's line of metrics.jsonl.
            weights: gives a copy of the epoch's weights.
        """

    def sentence(self, epoch: int | None, rows: Sequence[Row], held_out: HeldOut | None) -> str:
        """Return in words what chose the epoch.

        Args:
            epoch: that it chose, None for none.
            rows: the lines of metrics.jsonl.
            held_out: the validation split, None where there is none.
        """
        raise NotImplementedError


class Last(Rule):
    """The final weights.

    They are in every checkpoint, so that nothing is kept for them.
    """

    name: ClassVar[str] = "last"

    def sentence(
        self,
        epoch: int | None,
        rows: Sequence[Row],  # noqa: ARG002 - nothing was compared
        held_out: HeldOut | None,  # noqa: ARG002
    ) -> str:
        """Return in words that nothing chose."""
        return f"rule {self.name}: weights after epoch {epoch}"


class BestEpoch(Rule):
    """The epoch with the best validation metric ``key``; the earliest wins a tie.

    Epochs before all parts of the method have begun are not chosen: weights called LDAM-DRW would
    be LDAM's.
    """

    needs_validation: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.key: str = config.evaluate.metric
        self.first_epoch, self.reason = complete_from(config)

    def update(self, kept: Kept | None, row: Row, *, weights: Weights) -> Kept | None:
        """Return ``kept``, or this epoch where its metric beats it."""
        value = row.get(self.key)
        if value is None or row["epoch"] < self.first_epoch:
            return kept
        if not is_better(self.key.removeprefix("val/"), value, kept["value"] if kept else None):
            return kept
        return {"epoch": row["epoch"], "value": value, "state": weights()}

    def sentence(self, epoch: int | None, rows: Sequence[Row], held_out: HeldOut | None) -> str:
        """Return in words which metric chose, on how many labels, and where it is undefined."""
        since = f" from epoch {self.first_epoch} on ({self.reason})" if self.reason else ""
        open_to_it = [row for row in rows if row["epoch"] >= self.first_epoch]
        undefined = sum(row.get(self.key) is None for row in open_to_it)
        if epoch is None:
            return f"rule {self.name} chose nothing: {self.key} is undefined in every epoch{since}"
        said = f"rule {self.name}: epoch {epoch} has the best {self.key}{since} on {held_out}"
        if undefined:
            said += f"; {self.key} is undefined in {undefined} of {len(open_to_it)} epochs"
        return said


class Val(BestEpoch):
    """The epoch with the best evaluate.metric.

    Its numbers are the headline of a run that keeps it.
    """

    name: ClassVar[str] = "val"


class ValNll(BestEpoch):
    """The epoch with the lowest validation NLL, whatever evaluate.metric is."""

    name: ClassVar[str] = "val_nll"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.key = "val/nll"


def rules_of(config: Config, *, has_validation: bool = True) -> tuple[Rule, ...]:
    """Return the rules of a run: those of ``evaluate.rules`` that its splits allow."""
    classes = [c for c in globals().values() if isinstance(c, type) and issubclass(c, Rule)]
    return tuple(
        rule(config)
        for rule in classes
        if getattr(rule, "name", None) in config.evaluate.rules
        and (has_validation or not rule.needs_validation)
    )


def headline_of(rules: Collection[str]) -> str:
    """Return the rule whose numbers represent a run: ``val`` where it has chosen, else ``last``."""
    return Val.name if Val.name in rules else FINAL


class Selection:
    """The rules of a run, asked together, and when its metric ends training.

    Args:
        rules: from :func:`rules_of`.
        metric: ``evaluate.metric``.
        patience: of the run.
    """

    def __init__(self, rules: Iterable[Rule], *, metric: str, patience: Patience) -> None:
        self.rules = {rule.name: rule for rule in rules}
        self.metric = metric.removeprefix("val/")
        self.patience = patience

    @classmethod
    def of(cls, config: Config, *, has_validation: bool) -> Selection:
        """Return the selection of a run."""
        rules = rules_of(config, has_validation=has_validation)
        return cls(rules, metric=config.evaluate.metric, patience=Patience(config))

    @property
    def needs_ranking(self) -> bool:
        """Whether every epoch must compute AUROC and average precision."""
        return any(rule.needs_ranking for rule in self.rules.values())

    def remaining(self, done: int, *, rows: Iterable[Row]) -> Iterator[int]:
        """Yield the epochs (0-based) still to be trained, until patience has run out.

        Args:
            done: how many epochs are.
            rows: their lines of metrics.jsonl.
        """
        for row in rows:
            self.patience.update(row)
        for epoch in range(done, self.patience.epochs):
            if self.patience.is_over:
                return
            yield epoch

    @property
    def is_over(self) -> bool:
        """Whether training ends with the epoch that has ended last."""
        return self.patience.ends_training

    def update(self, best: Mapping[str, Kept], row: Row, *, weights: Weights) -> dict[str, Kept]:
        """Return what each rule keeps after an epoch, by its name; some keep nothing.

        Args:
            best: what they kept before.
            row: the epoch's line of metrics.jsonl.
            weights: gives the weights of the moment, in which training goes on.
        """
        self.patience.update(row)
        copied = functools.cache(lambda: copy_of(weights()))  # one copy, whoever wants it
        found = {
            name: rule.update(best.get(name), row, weights=copied)
            for name, rule in self.rules.items()
        }
        return {name: kept for name, kept in found.items() if kept is not None}

    def best_epoch(self, best: Mapping[str, Kept]) -> int | None:
        """Return the epoch that the headline would be of now, None where only the end will tell."""
        kept = best.get(headline_of(self.rules))
        return None if kept is None else kept["epoch"]

    def chosen(
        self, best: Mapping[str, Kept], *, epochs: int, weights: Weights
    ) -> dict[str, Chosen]:
        """Return the weights of each rule that has chosen one, now that training is over.

        Args:
            best: what they have kept.
            epochs: how many there were.
            weights: gives the weights at the end, which are those of ``last``.
        """
        found = {name: Chosen(kept["epoch"], kept["state"]) for name, kept in best.items()}
        found[FINAL] = Chosen(epochs, copy_of(weights()))
        return {name: found[name] for name in self.rules if name in found}

    def sentence(
        self, epochs: Mapping[str, int], rows: Sequence[Row], held_out: HeldOut | None
    ) -> str:
        """Return in words what chose the epochs of a run's results, that of the headline first.

        Args:
            epochs: chosen, by rule.
            rows: the lines of metrics.jsonl.
            held_out: the validation split, None where there is none.
        """
        headline = headline_of(epochs)
        told = [headline, *(n for n, rule in self.rules.items() if rule.needs_validation)]
        said = [
            self.rules[name].sentence(epochs.get(name), rows, held_out)
            for name in dict.fromkeys(told)
        ]
        end = "no validation labels were used" if held_out is None else "test chose nothing"
        return "; ".join([*said, end])


def copy_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of weights on the CPU, which training and loading leave alone."""
    return {key: value.detach().to("cpu", copy=True) for key, value in state.items()}


def oracle(rows: Sequence[Row], metric: str, headline: Scalars) -> Oracle | None:
    """Read the best test epoch off metrics.jsonl; None unless test was logged each epoch."""
    key = f"test/{metric}"
    best: Row | None = None
    for row in rows:
        value = row.get(key)
        if value is not None and is_better(metric, value, best[key] if best else None):
            best = row
    own = headline.get(metric)
    if best is None or own is None:
        return None
    return Oracle(epoch=best["epoch"], metric=metric, value=best[key], headline_value=own)
