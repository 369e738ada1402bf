"""One function in the catalogue is a metric everywhere: config, help, files, tables, searches."""

from __future__ import annotations

import ast
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.config.components import ROOT
from engine.config.metrics import PATH, heading, metrics, selectable
from engine.training.metrics import evaluate
from engine.training.metrics.catalogue import CATALOGUE
from tests._runs import small_words

NEW = '''

@metric("second worst class", better="max", column="2nd worst")
def second_worst_recall(scored: Scored) -> float | None:
    """Second smallest of the per-class recalls."""
    return float(np.sort(scored.recall[~np.isnan(scored.recall)])[1])
'''


def test_the_rows_read_from_the_source_are_the_functions_that_run() -> None:
    assert list(metrics()) == list(CATALOGUE)
    for name, row in metrics().items():
        assert row.help == inspect.getdoc(CATALOGUE[name]).partition("\n")[0]


def test_no_heading_and_no_column_stands_twice() -> None:
    headings = [row.heading for row in metrics().values()]
    columns = [row.column for row in metrics().values() if row.column]
    assert len(set(headings)) == len(headings)
    assert len(set(columns)) == len(columns)


def test_the_metrics_that_choose_epochs_are_defined_in_any_task() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), size=40)
    counts = np.array([500, 50, 5])
    found = evaluate(probabilities, np.arange(40) % 3, counts, ranking=True).scalars
    assert found.keys() == selectable().keys()
    assert None not in found.values()


@pytest.mark.parametrize(
    ("classes", "options", "added"),
    [
        (6, {}, {"top5_accuracy"}),
        (2, {}, {"f1"}),
        (2, {"threshold": 0.3}, {"f1", "f1_at_threshold"}),
        (3, {"old_classes": [0]}, {"old_accuracy", "new_accuracy"}),
        (3, {"old_classes": [0, 1, 2]}, set()),
        (3, {"ranking": True}, {"auroc", "average_precision"}),
    ],
)
def test_what_a_task_gives_decides_which_metrics_are_there(
    classes: int, options: dict, added: set[str]
) -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(classes), size=60)
    targets, counts = np.arange(60) % classes, np.full(classes, 30)
    always = {name for name, row in metrics().items() if row.needs is None}
    assert evaluate(probabilities, targets, counts, **options).scalars.keys() == always | added


def test_a_metric_is_named_in_words_even_if_nobody_knows_it() -> None:
    assert heading("mcc") == "MCC"
    assert heading("of_an_older_version") == "of an older version"


def test_every_row_is_read_from_literals_in_the_source() -> None:
    rows = [
        node
        for node in ast.parse(PATH.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    ]
    assert [node.name for node in rows] == list(metrics())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with one more function in the catalogue."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("engine", "data", "losses", "models", "experiments"):
        shutil.copytree(
            ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "results")
        )
    for script in ("train.py", "sweep.py", "reproduce.py"):
        shutil.copy(ROOT / script, root)
    with (root / PATH.relative_to(ROOT)).open("a", encoding="utf-8") as catalogue:
        catalogue.write(NEW)
    return root


def said_by(checkout: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_function_adds_a_metric_to_help_terminal_files_and_tables(
    checkout: Path, tmp_path: Path
) -> None:
    chosen = "val/second_worst_recall"
    assert "second_worst_recall" in said_by(checkout, "train.py", "--help", "evaluate")
    words = small_words(tmp_path / "runs", "schedule.epochs=2", f"evaluate.metric={chosen}")
    shown = said_by(checkout, "train.py", *words)
    assert f"has the best {chosen}" in shown
    assert "second worst class" in shown
    table = {
        "name": "table",
        "title": "t",
        "baseline": "plain",
        "rule": "val",
        "base": [word for word in words if not word.startswith("track.")],
        "seeds": [0],
        "settings": {"all": []},
        "methods": {"plain": []},
    }
    (tmp_path / "table.yaml").write_text(json.dumps(table))
    results = tmp_path / "t.jsonl"
    said_by(checkout, "reproduce.py", str(tmp_path / "table.yaml"), "--results", str(results))
    rule = json.loads(results.read_text())["rules"]["val"]
    assert 0 <= rule["test"]["second_worst_recall"] <= 1
    shown = said_by(checkout, "-m", "engine.tables", str(results), "--format", "markdown")
    assert "2nd worst" in shown


@pytest.mark.slow
def test_one_function_adds_a_metric_to_searches(checkout: Path, tmp_path: Path) -> None:
    assert "second_worst_recall" in said_by(checkout, "sweep.py", "--help")
    search = {
        "metric": "val/second_worst_recall",
        "budget": {"trials": 1, "epochs": 1},
        "space": {"optim.lr": {"float": [0.01, 0.1]}},
        "confirm": None,
    }
    (tmp_path / "search.yaml").write_text(json.dumps(search))
    taken = ("optim.lr", "schedule.epochs")
    words = [word for word in small_words(tmp_path) if not word.startswith(taken)]
    shown = said_by(checkout, "sweep.py", *words, "--search", str(tmp_path / "search.yaml"))
    assert "second_worst_recall" in shown
