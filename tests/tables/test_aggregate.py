"""Rows of a table: what is averaged, what is compared with what, and what is said about it."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from data import OWN_SHARES, SHARED_GROUPS
from engine.config.mistakes import ConfigError
from engine.report.statistics import paired_difference
from engine.tables.aggregate import METRICS, Block, Row, Wanted, blocks
from engine.tables.dot_plot import draw
from engine.tables.layout import sheet_of
from engine.tables.record import RunRecord
from tests.tables._lines import QUIET, around, line, lines

BASE = [0.80, 0.81, 0.79, 0.80, 0.82]
BETTER = [0.85, 0.87, 0.84, 0.86, 0.86]


def only_block(records: list[RunRecord], **wanted: Any) -> Block:
    (block,) = blocks(records, Wanted(**wanted))
    return block


def row_of(block: Block, method: str) -> Row:
    (row,) = [row for row in block.rows if row.method == method]
    return row


def test_a_row_is_the_mean_over_runs_and_its_difference_is_paired_by_seed() -> None:
    # In another order, so that pairing by position would show.
    records = [*lines("cross_entropy", BASE), *reversed(lines("focal", BETTER))]
    score = row_of(only_block(records), "focal").scores["balanced_accuracy"]
    assert score.summary is not None
    assert score.summary.mean == pytest.approx(statistics.mean(BETTER))
    assert score.summary.std == pytest.approx(statistics.stdev(BETTER))
    assert score.difference == paired_difference(BETTER, BASE)
    assert score.is_better


def test_the_baseline_row_has_no_difference() -> None:
    block = only_block(lines("cross_entropy", BASE) + lines("focal", BETTER))
    scores = row_of(block, "cross_entropy").scores.values()
    assert all(score.difference is None and not score.is_better for score in scores)


def test_four_seeds_are_never_better_however_far_apart() -> None:
    block = only_block(lines("cross_entropy", BASE[:4]) + lines("focal", [0.95] * 4))
    assert not any(score.is_better for score in row_of(block, "focal").scores.values())


def test_lower_is_better_for_nll_and_calibration_error() -> None:
    low = [
        line("focal", seed=seed, scores={"nll": nll, "ece": 0.1 + seed / 100})
        for seed, nll in enumerate([0.1, 0.12, 0.11, 0.1, 0.13])
    ]
    scores = row_of(only_block(lines("cross_entropy", BASE) + low), "focal").scores
    assert scores["nll"].is_better
    assert not scores["ece"].is_better


def test_an_empty_group_has_no_summary() -> None:
    block = only_block(lines("cross_entropy", BASE))
    assert block.rows[0].scores["few_accuracy"].summary is None
    assert block.group_sizes["few"] == 0


def test_runs_of_another_config_are_another_row() -> None:
    long = [*QUIET[:-1], "schedule.epochs=7"]
    records = lines("cross_entropy", BASE) + lines("cross_entropy", BETTER, words=long)
    rows = only_block(records).rows
    assert [len(row.records) for row in rows] == [5, 5]
    assert all("one of several that bear this name" in row.notes[0] for row in rows)
    assert {row.records[0].group in row.notes[0] for row in rows} == {True}


def test_settings_are_blocks_in_the_order_of_the_description() -> None:
    wide = [word.replace("factor=8", "factor=2") for word in QUIET]
    records = lines("cross_entropy", BASE) + lines(
        "cross_entropy", BASE, setting="factor 2", words=wide
    )
    order = ("factor 2", "factor 8")
    assert [block.setting for block in blocks(records, Wanted(settings=order))] == list(order)


# --- scope ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subsets", "n", "says"),
    [
        ((0,), 5, "all ran on one subset"),
        ((0, 1, 2), 5, "averaged over the same 3 subsets"),
        ((0, 1, 2, 3, 4), 5, "n counts the 5 subsets"),
        ((0, 1, 2, 3, 4, 5), 6, "n counts the 6 subsets"),
    ],
)
def test_n_counts_what_is_independent(subsets: tuple[int, ...], n: int, says: str) -> None:
    records = lines("cross_entropy", BASE, subsets=subsets)
    records += lines("focal", around(0.85), subsets=subsets)
    block = only_block(records)
    difference = row_of(block, "focal").scores["accuracy"].difference
    assert difference is not None
    assert (difference.n, difference.pairs) == (n, 5 * len(subsets))
    assert says in block.scope.text


@pytest.mark.parametrize(
    "pairs",
    [[(s, s) for s in range(5)], [(s, t) for s in range(5) for t in (0, 1)]],
    ids=["paired", "crossed"],
)
def test_subset_seeds_that_give_one_split_are_one_subset(pairs: list[tuple[int, int]]) -> None:
    """As of data that are long-tailed by themselves and bring a validation list."""
    records = [
        line(method, seed=seed, subset=subset, value=values[seed], split_fingerprint="the one")
        for method, values in (("cross_entropy", BASE), ("focal", BETTER))
        for seed, subset in pairs
    ]
    block = only_block(records)
    row = row_of(block, "focal")
    difference = row.scores["accuracy"].difference
    assert difference is not None
    assert (difference.n, difference.pairs) == (5, len(pairs))
    assert difference.mean == pytest.approx(statistics.mean(BETTER) - statistics.mean(BASE))
    assert block.scope.text == "n counts seeds; all ran on one subset, and others may differ"
    assert any("subset seeds, one split" in note for note in block.notes)
    assert sheet_of(block).rows[1][1].text == "5 × 1"


def test_a_seed_that_lacks_a_subset_is_left_out_of_the_difference_and_named() -> None:
    records = lines("cross_entropy", BASE, subsets=(0, 1))
    records += lines("focal", BETTER, subsets=(0, 1))[:-1]
    row = row_of(only_block(records), "focal")
    difference = row.scores["accuracy"].difference
    assert difference is not None and difference.n == 4
    assert row.notes == ("missing: seed 4 on subset 1",)


@pytest.mark.parametrize("num", [2, 3, 5])
def test_a_seed_of_its_own_for_each_subset_counts_once_a_subset(num: int) -> None:
    pairs = list(enumerate(BETTER[:num]))
    records = [line(seed=seed, subset=seed, value=BASE[seed]) for seed, _ in pairs]
    records += [line("focal", seed=seed, subset=seed, value=value) for seed, value in pairs]
    wanted = tuple((seed, seed) for seed, _ in pairs)
    block = only_block(records, pairs=wanted)
    row = row_of(block, "focal")
    difference = row.scores["accuracy"].difference
    assert difference == paired_difference(BETTER[:num], BASE[:num])
    assert row.notes == ()
    assert block.scope.text == f"n counts the {num} subsets"


def test_a_note_of_several_rows_stands_once_and_one_of_all_without_a_mark() -> None:
    methods = {"cross_entropy": BASE[:4], "focal": BETTER[:4], "ldam": around(0.8, n=3)}
    records = [record for name, values in methods.items() for record in lines(name, values)]
    sheet = sheet_of(only_block(records, pairs=tuple((seed, 0) for seed in range(5))))
    assert [note for note in sheet.notes if "missing" in note[1]] == [
        ("a", "missing: seed 4 on subset 0"),
        ("b", "missing: seeds 3, 4 on subset 0"),
    ]
    assert [row[0].marks for row in sheet.rows] == [("a",), ("a",), ("b",)]
    sheet = sheet_of(only_block(records[:8], pairs=tuple((seed, 0) for seed in range(5))))
    assert ("", "every row: missing: seed 4 on subset 0") in sheet.notes
    assert [row[0].marks for row in sheet.rows] == [(), ()]


def test_a_picture_of_rows_that_share_no_run_says_so_in_place_of_differences() -> None:
    records = lines("cross_entropy", BASE)[:2] + lines("focal", BETTER)[2:]
    apart, paired = (
        draw([only_block(found)]).axes[1] for found in (records, records + lines("focal", BETTER))
    )
    assert [text.get_text() for text in apart.texts] == ["no two rows are paired"]
    assert list(paired.texts) == []


# --- notes ---------------------------------------------------------------------------------------


def test_a_missing_seed_is_named_against_the_description_or_the_other_rows() -> None:
    records = lines("cross_entropy", BASE) + lines("focal", BETTER[:3])
    assert row_of(only_block(records), "focal").notes == ("missing: seeds 3, 4 on subset 0",)
    wanted = tuple((seed, 0) for seed in range(6))
    assert row_of(only_block(records, pairs=wanted), "cross_entropy").notes == (
        "missing: seed 5 on subset 0",
    )


def test_a_method_without_runs_is_named() -> None:
    block = only_block(lines("cross_entropy", BASE), methods=("ldam", "cross_entropy"))
    assert "not run yet: ldam" in block.notes


def test_mixed_code_is_named_run_by_run() -> None:
    records = lines("cross_entropy", BASE) + lines("focal", BETTER)
    records[-1] = line("focal", seed=4, value=BETTER[4], code_hash="later code")
    (note,) = row_of(only_block(records), "focal").notes
    assert note.startswith("made by code later code")
    assert note.endswith("seed 4 on subset 0")


def test_rows_of_the_same_files_must_share_their_code_and_others_need_not() -> None:
    records = lines("cross_entropy", BASE) + lines("focal", BETTER)
    records += lines("inverse_weights", BETTER, code_hash="code of its weights")
    records += lines("slower", BETTER[:4], code_hash="later code")
    block = only_block(records)
    assert row_of(block, "focal").notes == ()
    assert row_of(block, "inverse_weights").notes == ()
    assert row_of(block, "slower").notes[1].startswith("made by code later code")


def test_runs_on_another_split_are_named_and_not_compared() -> None:
    records = lines("cross_entropy", BASE) + lines("focal", BETTER)
    records[-1] = line("focal", seed=4, value=BETTER[4], split_fingerprint="elsewhere")
    row = row_of(only_block(records), "focal")
    difference = row.scores["accuracy"].difference
    assert difference is not None and difference.n == 4
    assert row.notes == (
        "another split of the same subset seed: seed 4 on subset 0",
        "not compared, as the baseline's split is another: seed 4 on subset 0",
    )


def test_a_run_that_diverged_is_left_out_and_named() -> None:
    records = lines("cross_entropy", BASE) + lines("focal", BETTER)
    records[-1] = line("focal", seed=4, value=None)
    row = row_of(only_block(records), "focal")
    assert row.scores["accuracy"].summary is not None
    assert row.scores["accuracy"].summary.n == 4
    assert row.notes == (
        "without numbers (the model diverged), and left out of the mean: seed 4 on subset 0",
    )


def test_the_runs_of_several_processors_are_counted() -> None:
    other = lines("cross_entropy", [0.81, 0.82], hardware={"processor": "another CPU"})
    records = [*lines("cross_entropy", [0.8] * 3), *other]
    (made,) = [note for note in only_block(records).notes if note.startswith("made with")]
    assert made.endswith(", a CPU (3 of 5) and another CPU (2 of 5)")
    (made,) = [note for note in only_block(records[:3]).notes if note.startswith("made with")]
    assert made.endswith(", a CPU")


def test_a_table_of_a_natural_test_split_says_at_which_shares_its_numbers_are() -> None:
    said = f"{OWN_SHARES}, 9 images of a class to 2: accuracy is at these"
    assert only_block(lines("cross_entropy", [0.8, 0.7], notes=(said,))).notes.count(said) == 1


def test_uncommitted_changes_are_counted() -> None:
    records = [*lines("cross_entropy", BASE[:4]), line(seed=4, dirty=True)]
    assert "1 of 5 runs from a checkout with uncommitted changes" in only_block(records).notes
    all_dirty = lines("cross_entropy", BASE, dirty=True)
    assert "all runs from a checkout with uncommitted changes" in only_block(all_dirty).notes
    assert "its run from a checkout with uncommitted changes" in only_block(all_dirty[:1]).notes


def test_words_that_no_longer_give_the_run_are_said() -> None:
    stale = lines("cross_entropy", BASE, fingerprint="0123456789ab")
    (note,) = only_block(stale).rows[0].notes
    assert note.startswith("its command no longer gives these runs")


# --- rules ---------------------------------------------------------------------------------------


def test_the_rule_is_the_headline_unless_one_is_named() -> None:
    result = {"epoch": 1, "val": None, "test": {"accuracy": 0.1}, "recall": [0.1]}
    rules = line().rules | {"last": result}
    records = [line(rules=rules)]
    assert only_block(records).rule == "val"
    last = only_block(records, rule="last")
    summary = last.rows[0].scores["accuracy"].summary
    assert summary is not None and summary.mean == 0.1


def test_headlines_that_differ_need_a_named_rule() -> None:
    records = [line(), line("focal", headline="last")]
    with pytest.raises(ConfigError, match="factor 8: the headlines of its runs are last and val"):
        blocks(records)
    assert only_block(records, rule="val").rule == "val"


def test_a_run_without_the_rule_is_named() -> None:
    rules = {"last": line().rules["last"]}
    row = only_block([line(), line(seed=1, rules=rules)]).rows[0]
    assert row.notes == ("no result by rule val: seed 1 on subset 0",)


def test_the_oracle_stands_beside_with_its_gap() -> None:
    oracle = {"epoch": 2, "metric": "accuracy", "value": 0.84, "headline_value": 0.8}
    block = only_block([line(value=0.8, oracle=oracle), line(seed=1, value=0.82)])
    assert block.rows[0].oracle == pytest.approx((0.84, 0.04))
    assert block.oracle_metric == "accuracy"
    summary = block.rows[0].scores["accuracy"].summary
    assert summary is not None and summary.mean == pytest.approx(0.81)


def test_an_unknown_baseline_names_the_nearest_row() -> None:
    with pytest.raises(ConfigError, match=r"no such row .*cross_entropy"):
        blocks([line()], Wanted(baseline="cross_entrop"))


def test_a_setting_without_the_baseline_says_that_nothing_is_compared() -> None:
    block = only_block([line("focal")], baseline="cross_entropy", methods=("cross_entropy",))
    assert "no run of the baseline cross_entropy: nothing is compared" in block.notes


def test_every_metric_of_a_column_is_one_that_runs_write() -> None:
    from engine.config.metrics import selectable

    assert METRICS.keys() <= selectable().keys()


def test_a_row_whose_splits_share_groups_says_so() -> None:
    said = f"{SHARED_GROUPS}, by smear: 12 in train and val"
    block = only_block([*lines("cross_entropy", BASE), *lines("focal", BETTER, notes=(said,))])
    assert row_of(block, "cross_entropy").notes == ()
    assert row_of(block, "focal").notes == (said,)
