"""The closing table: what it computes, what it claims, and in which words."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from engine.config.load import load
from engine.report.statistics import paired_difference
from engine.training.summary import RuleResult, Summary
from engine.tuning.confirm import closing_table, confirmed_rows
from engine.tuning.confirm.candidates import DEFAULT, Candidate
from engine.tuning.confirm.confirmed_rows import Row
from engine.tuning.study.trials import Objective
from tests.tuning._studies import BALANCED, NLL

SEEDS = (1, 2, 3, 4, 5)
BASE = [0.70, 0.72, 0.69, 0.71, 0.73]
BETTER = [0.80, 0.81, 0.80, 0.82, 0.83]
SAME = [0.71, 0.71, 0.70, 0.70, 0.74]


def summary_of(val: float | None, test: float | None, *, metric: str, split: str = "a") -> Summary:
    last = RuleResult(epoch=3, val={metric: 0.0}, test={metric: 0.0}, classes=())
    best = RuleResult(epoch=2, val={metric: val}, test={metric: test}, classes=())
    return Summary(
        title="t", fingerprint="f", group="g", seed=0, split_fingerprint=split, code_hash="c",
        headline="val", rules={"last": last, "val": best}, oracle=None, selection="s",
        class_counts=(2, 1), group_sizes={}, notes=(), time={},
    )  # fmt: skip


def table_of(
    val: Mapping[str, Sequence[float | None]],
    test: Mapping[str, Sequence[float | None]],
    *,
    objective: Objective = BALANCED,
    without: Sequence[tuple[str, int]] = (),
    diverged: Sequence[tuple[str, int]] = (),
) -> list[Row]:
    config = load()
    found = [
        Candidate(name, config, {} if name == DEFAULT else {"loss.gamma": 1.23456}, number, (0.9,))
        for number, name in enumerate(val)
    ]
    metric = objective.metric.removeprefix("val/")
    results = {
        (name, seed): summary_of(v, t, metric=metric)
        for name in val
        for seed, v, t in zip(SEEDS, val[name], test[name], strict=False)
        if (name, seed) not in {*without, *diverged}
    }
    return confirmed_rows.rows(found, results, objective, seeds=SEEDS, diverged=diverged)


@pytest.fixture
def table() -> list[Row]:
    val = {DEFAULT: BASE, "trial 3": BETTER, "trial 5": SAME}
    return table_of(val, val)


def test_means_spreads_and_paired_differences_are_those_of_the_runs(table: list[Row]) -> None:
    for row, values in zip(table, (BASE, BETTER, SAME), strict=True):
        assert row.test is not None
        assert row.test.mean == pytest.approx(np.mean(values))
        assert row.test.std == pytest.approx(np.std(values, ddof=1))
        assert row.test.n == 5
    assert table[0].difference is None
    assert table[1].difference == paired_difference(BETTER, BASE)


def test_what_cannot_be_told_apart_is_called_so(table: list[Row]) -> None:
    assert [row.verdict for row in table] == [
        "–",
        "better than the default",
        "not distinguishable from the default",
    ]


def test_a_worse_setting_is_called_worse() -> None:
    val = {DEFAULT: BETTER, "trial 3": BASE}
    assert table_of(val, val)[1].verdict == "worse than the default"


def test_of_a_metric_to_be_small_less_is_better() -> None:
    val = {DEFAULT: BETTER, "trial 3": BASE}
    table = table_of(val, val, objective=NLL)
    assert table[1].verdict == "better than the default"
    assert confirmed_rows.chosen(table) is table[1]


def test_validation_chooses_whatever_test_says() -> None:
    val = {DEFAULT: BASE, "trial 3": BETTER, "trial 5": SAME}
    test = {DEFAULT: BASE, "trial 3": [0.1] * 5, "trial 5": [0.99] * 5}
    best = confirmed_rows.chosen(table_of(val, test))
    assert best is not None
    assert best.candidate.name == "trial 3"


def test_the_default_wins_a_tie() -> None:
    val = {DEFAULT: BASE, "trial 3": BASE}
    table = table_of(val, val)
    assert confirmed_rows.chosen(table) is table[0]


def test_runs_are_paired_by_seed_where_one_is_missing() -> None:
    val = {DEFAULT: BASE, "trial 3": BETTER}
    table = table_of(val, val, without=[(DEFAULT, 2), ("trial 3", 4)])
    assert table[1].difference == paired_difference(
        [BETTER[i] for i in (0, 2, 4)], [BASE[i] for i in (0, 2, 4)]
    )
    assert confirmed_rows.chosen(table) is None
    assert closing_table.cells(table[1])[4] == "4 (1 to come)"
    sentences = closing_table.explanation(table, seeds=SEEDS)
    assert "nothing is chosen: every setting lacks a run" in sentences
    assert any("run the same command to complete it" in line for line in sentences)


def test_no_pair_is_no_difference() -> None:
    val = {DEFAULT: BASE, "trial 3": BETTER}
    table = table_of(val, val, diverged=[("trial 3", seed) for seed in SEEDS])
    assert table[1].verdict == "no pair of runs to compare"
    assert table[1].test is None
    assert closing_table.cells(table[1])[2:5] == ["–", "–", "0 (5 diverged)"]


def test_a_metric_that_is_undefined_in_a_run_leaves_it_out() -> None:
    val = {DEFAULT: BASE, "trial 3": BETTER}
    test = {DEFAULT: BASE, "trial 3": [None, *BETTER[1:]]}
    row = table_of(val, test)[1]
    assert row.test is not None
    assert row.test.n == 4
    assert row.difference == paired_difference(BETTER[1:], BASE[1:])


def test_seed_std_weighs_settings_by_their_degrees_of_freedom() -> None:
    val = {DEFAULT: BASE, "trial 3": BETTER}
    table = table_of(val, val, without=[("trial 3", s) for s in (3, 4, 5)])
    expected = (4 * np.var(BASE, ddof=1) + np.var(BETTER[:2], ddof=1)) / 5
    assert confirmed_rows.seed_std(table) == pytest.approx(expected**0.5)
    alone = table_of(val, val, without=[(n, s) for n in val for s in (2, 3, 4, 5)])
    assert confirmed_rows.seed_std(alone) is None


# --- as text --------------------------------------------------------------------------------------


def test_the_table_of_the_terminal_marks_the_chosen_setting(table: list[Row]) -> None:
    file = io.StringIO()
    Console(file=file, width=80).print(closing_table.screen_table(table, title="digits"))
    (marked,) = [line for line in file.getvalue().splitlines() if line.strip().startswith("*")]
    assert marked.split()[:9] == [
        "*",
        "trial",
        "3",
        "0.900",
        *["0.812", "±", "0.013"],
        "0.812",
        "±",
    ]
    assert "+0.102 [+0.0" in marked
    assert "…" not in file.getvalue()


def test_a_line_a_setting_says_what_it_sets_and_the_verdict(table: list[Row]) -> None:
    assert closing_table.verdicts(table) == [
        "trial 3: loss.gamma=1.235: better than the default",
        "trial 5: loss.gamma=1.235: not distinguishable from the default",
    ]


def test_the_explanation_states_what_chose_and_on_which_seeds(table: list[Row]) -> None:
    text = " ".join(closing_table.explanation(table, seeds=SEEDS))
    assert "* chosen: trial 3, the best confirmed mean of val/balanced_accuracy on valid" in text
    assert "test has no say in it" in text
    assert "the seeds 1 to 5, none of which the search used" in text
    assert "one training subset (data.imbalance.seed=0)" in text


def test_the_explanation_says_what_the_default_is(table: list[Row]) -> None:
    text = " ".join(closing_table.explanation(table, seeds=SEEDS))
    assert "default = cross_entropy, cifar_resnet20, digits: the config of the command line" in text
    methods = [replace(row, candidate=replace(row.candidate, name="plain")) for row in table]
    assert "default =" not in " ".join(closing_table.explanation(methods, seeds=SEEDS))


def test_brackets_are_explained_where_there_are_any(table: list[Row]) -> None:
    text = " ".join(closing_table.explanation(table, seeds=SEEDS))
    assert "in brackets: 95 % interval of the paired difference, each by itself; at each" in text
    assert "the wider of Student's t and the studentized bootstrap" in text
    few = {DEFAULT: BASE[:2], "trial 3": BETTER[:2]}
    lines = closing_table.explanation(table_of(few, few), seeds=SEEDS[:2])
    assert not any("in brackets" in line for line in lines)
    assert any("the column search is the best of many" in line for line in lines)


def test_too_few_seeds_say_how_many_a_claim_needs() -> None:
    few = {DEFAULT: BASE[:2], "trial 3": SAME[:2]}
    assert table_of(few, few)[1].verdict == (
        "not distinguishable from the default (2 seeds; at least 5 are needed to claim a "
        "difference)"
    )


def test_csv_holds_every_row_with_full_precision(table: list[Row]) -> None:
    rows = list(csv.DictReader(io.StringIO(closing_table.csv_text([table, table]))))
    assert len(rows) == 6
    assert float(rows[1]["test_mean"]) == np.mean(BETTER)
    assert rows[1]["is_chosen"] == "True"
    assert rows[1]["params"] == "loss.gamma=1.23456"
    assert rows[0]["difference"] == ""
    assert rows[2]["verdict"] == "not distinguishable from the default"


def test_markdown_cells_survive_what_a_value_may_hold(table: list[Row]) -> None:
    odd = Candidate("trial 3", table[0].candidate.config, {"data.path": "a|b\n"}, 3, (0.9,))
    row = Row(odd, BALANCED, searched=0.9, val=None, test=None, difference=None)
    text = closing_table.markdown([[table[0], row]], title="t", seeds=SEEDS)
    (line,) = [line for line in text.splitlines() if "trial 3" in line]
    assert r"a\|b" in line
    assert len([c for c in line.replace(r"\|", "") if c == "|"]) == 8
