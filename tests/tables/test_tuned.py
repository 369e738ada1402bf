"""Tables whose cells are tuned first: alike for all, kept in a file, run on fresh seeds."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.analysis.table_rows import analyse_table
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.tables import tuned
from engine.tables.cells import Cell, cells
from engine.tables.record import read
from engine.tables.table import read_table
from engine.tables.table_file import PAPERS, read_table_file
from engine.tables.tuned import TunedCell, identity, read_tuned, searches
from engine.tuning.search import Search
from reproduce import main
from tests.tables._tables import write_table

SEARCH: dict[str, Any] = {
    "budget": {"trials": 1},
    "sampler": "random",
    "space": {
        "optim.lr": {"float": [0.01, 0.1], "log": True},
        "loss.tau": {"float": [0.5, 2.0], "where": {"loss.name": "logit_adjustment"}},
    },
}
CHANGES: dict[str, Any] = {
    "methods": {"cross_entropy": [], "logit_adjustment": ["loss=logit_adjustment"]},
    "settings": {"plain": [], "sam": ["optim.sam=0.05"]},
    "seeds": [5],
}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of two recipes and two losses, yet to be tuned."""
    monkeypatch.setattr(tuned, "TUNED", tmp_path / "tuned")
    return written(tmp_path)


def written(folder: Path, search: dict[str, Any] | None = None, **changes: Any) -> Path:
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump({**SEARCH, **(search or {})}, sort_keys=False))
    return write_table(folder, tune=str(path), **{**CHANGES, **changes})


def keep(table: Path, **changes: Any) -> None:
    """Write tuned words for every cell, as --tune does; ``changes`` are fields of each."""
    found: dict[str, dict[str, Any]] = {}
    for (row, setting), search in searches(read_table_file(table)).items():
        cell = {"base": identity(search), "trials": 1, "value": 0.5, "words": ["optim.lr=0.02"]}
        found.setdefault(setting, {})[row] = cell | deepcopy(changes)
    tuned.TUNED.mkdir(exist_ok=True)
    (tuned.TUNED / "tiny.yaml").write_text(yaml.safe_dump(found, sort_keys=False))


def mistakes(table: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_tuned(read_table_file(table), table)
    return str(caught.value)


def test_every_cell_is_searched_alike_in_all_but_what_only_it_has(table: Path) -> None:
    found = searches(read_table_file(table))
    assert list(found) == [
        ("cross_entropy", "plain"),
        ("logit_adjustment", "plain"),
        ("cross_entropy", "sam"),
        ("logit_adjustment", "sam"),
    ]
    assert {search.file.budget.trials for search in found.values()} == {1}
    assert len({search.study for search in found.values()}) == 4
    spaces = {pair: list(search.file.space) for pair, search in found.items()}
    assert spaces["cross_entropy", "sam"] == ["optim.lr"]
    assert spaces["logit_adjustment", "sam"] == ["optim.lr", "loss.tau"]
    assert found["cross_entropy", "sam"].base.optim.sam == 0.05


@pytest.mark.parametrize(
    ("methods", "settings", "changed"),
    [
        (["τ 1", "δ 1", "plain"], ["all"], ["τ 1", "δ 1"]),
        (["c", "b-c"], ["a-b", "a", "d"], ["c in a-b", "b-c in a"]),
    ],
)
def test_cells_whose_names_differ_do_not_share_a_study(
    tmp_path: Path, methods: list[str], settings: list[str], changed: list[str]
) -> None:
    rows = {name: [f"loss.label_smoothing=0.{n}"] for n, name in enumerate(methods)}
    columns = {name: [f"optim.weight_decay=0.{n}"] for n, name in enumerate(settings)}
    changes = {"methods": rows, "settings": columns, "baseline": methods[0]}
    found = searches(read_table_file(written(tmp_path, **changes)))
    names = {pair: search.study for pair, search in found.items()}
    assert len(set(names.values())) == len(methods) * len(settings)
    for (row, setting), name in names.items():
        is_changed = row in changed or f"{row} in {setting}" in changed
        usual = f"tune-tiny-{setting}-{row}"
        assert bool(re.fullmatch(r"[\w.-]+-[0-9a-f]{6}", name, re.ASCII)) == is_changed
        assert (name == usual) == (not is_changed)


def test_tuned_words_are_those_of_every_run_of_their_cell(table: Path) -> None:
    keep(table)
    words = {pair: cell.words for pair, cell in read_tuned(read_table_file(table), table).items()}
    runs = cells(read_table_file(table), tuned=words)
    assert {run.config.optim.lr for run in runs} == {0.02}
    assert all("optim.lr=0.02" in run.words for run in runs)


def test_a_table_that_is_to_be_tuned_makes_no_run_before(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(table)]) == 2
    said = f"{table}: is not tuned yet: python reproduce.py {table} --tune\n"
    assert capsys.readouterr().err == said


def test_the_lines_of_a_table_that_is_not_tuned_yet_want_the_tuning_first(table: Path) -> None:
    with pytest.raises(ConfigError, match=rf"not tuned yet: python reproduce.py {table} --tune"):
        read_table(table)
    keep(table)
    with pytest.raises(ConfigError, match=rf"; python reproduce.py {table} makes it"):
        read_table(table)


def test_words_that_were_found_over_another_recipe_are_refused(table: Path) -> None:
    keep(table)
    written(table.parent, settings={"plain": [], "sam": ["optim.sam=0.1"]})
    assert "cross_entropy in sam was tuned with other words" in mistakes(table)


def test_words_that_were_found_in_another_space_are_refused(table: Path) -> None:
    keep(table)
    wider = {"optim.lr": {"float": [0.01, 0.5], "log": True}}
    written(table.parent, search={"space": wider})
    said = mistakes(table)
    assert "cross_entropy in plain was tuned with other words" in said
    assert said.endswith(f"python reproduce.py {table} --tune makes it again")


def test_a_cell_without_tuned_words_is_named(table: Path) -> None:
    keep(table)
    written(table.parent, settings={**CHANGES["settings"], "adamw": ["optim=adamw"]})
    assert "has no cross_entropy in adamw" in mistakes(table)


def test_a_seed_that_was_tuned_on_is_no_fresh_one(table: Path) -> None:
    keep(table)
    written(table.parent, seeds=[0, 5])
    assert mistakes(table) == "seeds: 0 is that of a trial; give the table fresh seeds"


def test_words_that_lack_what_the_search_sets_are_refused(table: Path) -> None:
    written(table.parent, search={"set": {"optim.momentum": 0.5}})
    keep(table)
    assert "cross_entropy in plain was tuned with other words" in mistakes(table)
    keep(table, words=["optim.momentum=0.5", "optim.lr=0.02"])
    assert len(read_tuned(read_table_file(table), table)) == 4


def test_a_seed_of_a_trial_is_refused_before_the_first_trial(
    table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned, "_searched", None)  # no trial is made
    written(table.parent, seeds=[0, 5])
    assert main([str(table), "--tune"]) == 2
    assert "seeds: 0 is that of a trial" in capsys.readouterr().err


def found_without_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    def searched(search: Search, *_: Any, **__: Any) -> TunedCell:
        return TunedCell(base=identity(search), trials=1, value=0.5, words=("optim.lr=0.02",))

    monkeypatch.setattr(tuned, "_searched", searched)


def test_a_subset_that_is_tuned_on_is_said_and_no_absolute_path_is_kept(
    table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found_without_trials(monkeypatch)
    assert main([str(table), "--tune"]) == 0
    assert "subset_seeds: 0 is tuned on" in capsys.readouterr().out
    head = (tuned.TUNED / "tiny.yaml").read_text().splitlines()[0]
    assert head.startswith("# Found by `python reproduce.py tiny.yaml --tune`: of 1 trials")
    written(table.parent, subset_seeds=[1])
    assert main([str(table), "--tune"]) == 0
    assert "subset_seeds" not in capsys.readouterr().out


def test_a_hash_that_looks_like_a_number_is_read_again_as_text(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned, "identity", lambda search: "940e12")
    monkeypatch.setattr(
        tuned,
        "_searched",
        lambda *_, **__: TunedCell(base="940e12", trials=1, value=0.5, words=("optim.lr=0.02",)),
    )
    assert main([str(table), "--tune"]) == 0
    found = read_tuned(read_table_file(table), table)
    assert {cell.base for cell in found.values()} == {"940e12"}


def test_the_command_of_a_table_of_the_repository_is_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = tuned.command_of(PAPERS / "digits_duel.yaml")
    assert command == "python reproduce.py experiments/papers/digits_duel.yaml --tune"


def test_what_was_found_and_cannot_be_written_is_one_line(
    table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found_without_trials(monkeypatch)
    tuned.TUNED.write_text("a file where the folder would be")
    assert main([str(table), "--tune"]) == 1
    assert "tiny.yaml: cannot be written: " in capsys.readouterr().err


def test_an_analysis_reads_the_runs_with_their_tuned_words(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"is not tuned yet: .* --tune"):
        analyse_table(table)
    keep(table)
    looked_at = []
    monkeypatch.setattr(Cell, "folder", property(lambda cell: looked_at.append(cell) or table))
    with pytest.raises(ConfigError, match=r"none of its 4 runs is finished"):
        analyse_table(table)
    assert {cell.config.optim.lr for cell in looked_at} == {0.02}


@pytest.mark.parametrize("text", ["plain: 3\n", "plain: {cross_entropy: {words: [a=1]}}\n"])
def test_a_file_that_holds_no_tuned_words_is_said(table: Path, text: str) -> None:
    keep(table)
    (tuned.TUNED / "tiny.yaml").write_text(text)
    assert "not tuned words of this version" in mistakes(table)


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"budget": {"trials": 2, "timeout": 60}}, "budget.timeout: would give a fast method more"),
        (
            {"sampler": "grid", "budget": {}, "space": {"optim.lr": {"choice": [0.01, 0.1]}}},
            "sampler=grid: a grid's size is not a budget",
        ),
        (
            {"budget": {"trials": 1, "epochs": 1}},
            "budget.epochs=1: the runs of the table have schedule.epochs=2; leave budget.epochs",
        ),
        (
            {"metric": "val/accuracy"},
            "metric=val/accuracy: the runs of the table have evaluate.metric=val/balanced_accuracy",
        ),
        ({"metric": ["val/balanced_accuracy", "val/nll"]}, "a cell is tuned by one"),
        ({"set": {"seed": 3}}, "set.seed: the trials and the table have seeds of their own"),
    ],
)
def test_what_gives_a_cell_more_or_other_than_the_table_has_is_refused(
    table: Path, search: dict[str, Any], said: str
) -> None:
    written(table.parent, search=search)
    with pytest.raises(ConfigError) as caught:
        searches(read_table_file(table))
    assert said in str(caught.value)


def test_a_second_stage_cannot_be_tuned_by_itself(table: Path) -> None:
    stages = {
        "cross_entropy": [],
        "crt": {"after": "cross_entropy", "words": ["model.freeze=true"]},
    }
    written(table.parent, methods=stages)
    with pytest.raises(ConfigError, match="crt starts from another row"):
        searches(read_table_file(table))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tune", "--list"], "--list: has no effect with --tune"),
        (["--tune", "--workers", "2"], "--workers: has no effect with --tune"),
        (["--cost", "--list"], "--cost: has no effect with --list, which prints no table"),
        (
            ["--check", "--renew"],
            "--renew: has no effect with --check, which makes every run again",
        ),
        (
            ["--list", "--time-limit=1m"],
            "--time-limit: has no effect with --list, which runs nothing",
        ),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    table: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main([str(table), *options]) == 2
    assert capsys.readouterr().err == f"{said}\n"


def test_a_table_without_a_search_has_nothing_to_tune(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path)
    assert main([str(table), "--tune"]) == 2
    assert "has no tune: SEARCH.yaml" in capsys.readouterr().err


def test_a_cell_that_stops_early_is_not_tuned(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("engine.tuning.study.trials.NON_FINITE_IN_A_ROW", 1)
    rates = {"optim.lr": {"float": [0.01, 1e30], "log": True}}
    written(
        table.parent,
        search={
            "budget": {"trials": 3},
            "space": rates,
            "enqueue": [{"optim.lr": 0.05}, {"optim.lr": 1e30}],
        },
        settings={"plain": ["data.imbalance.factor=8"]},
        epochs=1,
    )
    assert main([str(table), "--tune"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tune-tiny-plain-cross_entropy: 2 of 3 trials, as the last 1 diverged; ")
    assert not tuned.tuned_file(read_table_file(table)).exists()


def test_a_table_is_tuned_and_then_made_on_its_own_seeds(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(
        table.parent,
        search={"set": {"optim": {"momentum": 0.5}}},
        settings={"plain": ["data.imbalance.factor=8"]},
    )
    assert main([str(table), "--tune"]) == 0
    found = read_tuned(read_table_file(table), table)
    assert {len(cell.words) for cell in found.values()} == {2, 3}
    assert all("optim.momentum=0.5" in cell.words for cell in found.values())
    assert main([str(table), "--tune"]) == 0  # finished: no trial is added
    assert read_tuned(read_table_file(table), table) == found
    results = table.with_name("lines.jsonl")
    assert main([str(table), "--results", str(results)]) == 0
    for record in read(results):
        assert load(overrides=record.words).optim.momentum == 0.5
        assert set(found[record.method, "plain"].words) <= set(record.words)
        assert record.seed == 5
