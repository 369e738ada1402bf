"""A comparison of methods: alike in all but the method, on fresh seeds, and in so many words."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

import sweep
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.tuning.confirm import comparison_report
from engine.tuning.figures import best_of_n_figures, drawing
from engine.tuning.figures.best_of_n import best_of_n
from engine.tuning.search import command_line
from engine.tuning.search.checks import checked
from engine.tuning.search.methods import check_epochs
from engine.tuning.study import trials
from tests._runs import small_words

SPACE = {
    "optim.lr": {"float": [0.01, 0.1], "log": True},
    "loss.gamma": {"float": [0, 2], "where": {"loss": "softmax_focal"}},
}
SHARED = {
    "metric": "val/balanced_accuracy",
    "budget": {"trials": 2, "epochs": 1},
    "pruner": "median",
    "space": SPACE,
    "enqueue": [{"loss.gamma": 1.0, "optim.lr": 0.02}, {"optim.lr": 0.05}],
    "confirm": {"top": 1, "seeds": 1},
}
POWER = {
    "metric": "val/nll",
    "budget": {"trials": 50},
    "set": {"loss": "softmax_focal", "reweight": "power"},
    "space": {"reweight.power": {"float": [0, 1]}},
}


def written(folder: Path, name: str, content: dict[str, Any]) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    contents: dict[str, dict[str, Any]] = {
        "shared": SHARED,
        "power": POWER,
        "plain": {"loss": "cross_entropy"},
        "focal": {"loss": {"name": "softmax_focal"}},
        "ldam": {"loss": "ldam", "model": {"head": "cosine"}},
    }
    return {name: written(tmp_path, name, content) for name, content in contents.items()}


def parsed(
    files: dict[str, str], *names: str, lead: str | None = "shared"
) -> command_line.Arguments:
    search = [] if lead is None else ["--search", files[lead]]
    return command_line.parse([*search, "--compare", *(files[name] for name in names)])


def mistake(files: dict[str, str], *names: str, lead: str | None = "shared") -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(files, *names, lead=lead)
    return "\n".join(caught.value.mistakes)


# --- what is compared -----------------------------------------------------------------------------


def test_every_method_has_the_same_metric_trials_and_epochs_and_nothing_is_pruned(
    files: dict[str, str],
) -> None:
    found = parsed(files, "plain", "focal", "power").methods
    assert [search.study.rpartition("-")[2] for search in found] == ["plain", "focal", "power"]
    for search in found:
        assert search.file.budget.trials == 2
        assert search.file.metrics == ("val/balanced_accuracy",)
        assert search.file.pruner.name == "none"
        assert {config.schedule.epochs for config in checked(search)} == {1}


def test_a_config_is_searched_over_the_keys_that_exist_with_it(files: dict[str, str]) -> None:
    plain, focal, power = parsed(files, "plain", "focal", "power").methods
    assert list(plain.file.space) == ["optim.lr"]
    assert plain.file.enqueue == ({"optim.lr": 0.05},)
    assert plain.config({"optim.lr": 0.02}).loss.name == "cross_entropy"
    assert list(focal.file.space) == ["optim.lr", "loss.gamma"]
    assert len(focal.file.enqueue) == 2
    assert list(power.file.space) == ["reweight.power"]


def test_search_files_alone_are_led_by_the_first(files: dict[str, str], tmp_path: Path) -> None:
    other = written(tmp_path, "other", {**POWER, "budget": {"trials": 7}})
    found = command_line.parse(["--compare", files["power"], other]).methods
    assert [search.file.budget.trials for search in found] == [50, 50]
    more = command_line.parse(["--compare", files["power"], other, "--trials", "9"]).methods
    assert [search.file.budget.trials for search in more] == [9, 9]


def test_a_comparison_without_a_file_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr=0\.1: no such file"):
        command_line.parse(["--search", files["shared"], "--compare", "optim.lr=0.1"])


def test_an_unfair_comparison_is_refused(files: dict[str, str], tmp_path: Path) -> None:
    files["timed"] = written(tmp_path, "timed", {**SHARED, "budget": {"trials": 2, "timeout": 9}})
    files["endless"] = written(tmp_path, "endless", {**SHARED, "budget": {"timeout": 9}})
    files["fixed"] = written(tmp_path, "fixed", {**SHARED, "set": {"loss": "softmax_focal"}})
    assert "give a fast method more trials" in mistake(files, "plain", "focal", lead="timed")
    assert "budget.trials: is missing" in mistake(files, "plain", "focal", lead="endless")
    assert "sets this key for all" in mistake(files, "plain", "focal", lead="fixed")
    assert "expected two files" in mistake(files, "plain")
    assert "plain is named twice" in mistake(files, "plain", "plain")
    assert "give one with --search FILE" in mistake(files, "plain", "focal", lead=None)
    assert "is not a search file" in mistake(files, "power", "focal", lead=None)


def test_a_method_that_no_key_of_the_space_fits_is_refused(
    files: dict[str, str], tmp_path: Path
) -> None:
    only = {"loss.gamma": SPACE["loss.gamma"]}
    files["only"] = written(tmp_path, "only", {**SHARED, "space": only, "enqueue": []})
    assert "no key of the space of only.yaml exists" in mistake(
        files, "focal", "plain", lead="only"
    )


def test_methods_that_train_for_different_times_are_refused(files: dict[str, str]) -> None:
    plain, focal, _ = methods = parsed(files, "plain", "focal", "power").methods
    short, long = load(overrides=["schedule.epochs=3"]), load(overrides=["schedule.epochs=5"])
    check_epochs(methods, [[short, short], [short], [short]])
    expected = r"different epochs \(\S+-plain 3, \S+-focal 3/5\); set budget\.epochs"
    with pytest.raises(ConfigError, match=expected):
        check_epochs((plain, focal), [[short], [short, long]])


# --- what it finds --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_comparison_runs_says_what_it_found_and_goes_on_where_it_was(
    files: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched = ("schedule", "optim.lr")
    words = [word for word in small_words(tmp_path / "runs") if not word.startswith(searched)]
    command = [*words, "--search", files["shared"], "--compare", files["plain"], files["focal"]]
    assert sweep.main([*command, "--study", "both"]) == 0
    folder = tmp_path / "runs" / "both"
    first = capsys.readouterr().out
    assert "confirm: focal, seed 1 (1 left)" in first
    assert (
        "not distinguishable from plain (1 seed; at least 5 are needed to claim a difference)"
        in first
    )

    curves = list(csv.DictReader((folder / "best_of_n.csv").read_text().splitlines()))
    text = (tmp_path / "runs" / "both-focal" / "trials.csv").read_text()
    made = list(csv.DictReader(text.splitlines()))
    values = [float(row["val/balanced_accuracy"]) for row in made]
    expected = best_of_n(values, direction="maximize").mean
    found = [float(row["expected_best"]) for row in curves if row["method"] == "focal"]
    assert found == pytest.approx(expected.tolist())
    rows = list(csv.DictReader((folder / "confirm.csv").read_text().splitlines()))
    assert [row["setting"] for row in rows] == ["plain", "focal"]
    assert (folder / "figures" / "best_of_n.pdf").exists()
    assert load([tmp_path / "runs" / "both-focal" / "best.yaml"]).loss.name == "softmax_focal"

    before = {p: p.stat().st_mtime_ns for p in folder.rglob("summary.json")}
    assert len(before) == 2
    monkeypatch.setattr(drawing, "save_all", lambda *_: None)  # which takes longer than the rest
    assert sweep.main([*command, "--study", "both"]) == 0
    again = capsys.readouterr().out
    assert "confirm:" not in again
    assert first[first.index("both: expected") :] == again[again.index("both: expected") :]
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("summary.json")} == before


def test_a_method_that_stops_early_is_said_to_have_had_fewer_trials(
    files: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trials, "NON_FINITE_IN_A_ROW", 1)
    # What takes longer than the rest.
    monkeypatch.setattr(drawing, "save_all", lambda *_: None)
    monkeypatch.setattr(comparison_report, "save", lambda *_: None)
    monkeypatch.setattr(best_of_n_figures, "comparison", lambda *_, **__: None)
    rates = [{"optim.lr": 0.05}, {"optim.lr": 1e30}]
    wild = {**SHARED, "set": {"loss": "softmax_focal"}, "enqueue": rates}
    wild["space"] = {"optim.lr": {"float": [0.01, 1e30], "log": True}}
    files["wild"] = written(tmp_path, "wild", wild)
    tame = {**SHARED, "budget": {"trials": 3, "epochs": 1}, "confirm": {"top": 0}}
    files["shared"] = written(tmp_path, "shared", tame)
    searched = ("schedule", "optim.lr")
    words = [word for word in small_words(tmp_path / "runs") if not word.startswith(searched)]
    command = [*words, "--search", files["shared"], "--compare", files["plain"], files["wild"]]
    assert sweep.main([*command, "--study", "both"]) == 0
    output = capsys.readouterr().out
    assert "wild: 2 of 3 trials, as the last 1 diverged: its best is the best of fewer" in output
    assert "plain: 3 of 3" not in output
