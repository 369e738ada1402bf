"""docs/extending.md: each of its parts is added to a copy of the project; they work together."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests._documents import blocks, commands_of
from tests._runs import SMALL
from tests._source_tree import ROOT

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
EXAMPLES = blocks(PAGE, "python")
FILES = {
    text.splitlines()[0].removeprefix("# "): text for text in EXAMPLES if text.startswith("# ")
}
# Those that are added to a file that is there, and which.
ADDITIONS = {
    "@metric(": "engine/training/metrics/catalogue.py",
    "class ValEce": "engine/training/selection.py",
}
FOR_SPEED = [
    *(word for word in SMALL if word.startswith(("optim.", "runtime.", "track."))),
    "schedule.epochs=2",
]


def test_the_page_has_an_example_of_every_kind() -> None:
    assert len(FILES) + len(ADDITIONS) == len(EXAMPLES)
    assert {str(Path(name).parent) for name in FILES} == {
        "data",
        "models",
        "models/heads",
        "models/tuning",
        "data/samplers",
        "losses/weights",
        "engine/training/schedules",
        "engine/report/tracking",
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with every example of the page in its place."""
    root = tmp_path_factory.mktemp("project")
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("engine", "losses", "data", "models"):
        shutil.copytree(ROOT / package, root / package, ignore=ignored)
    shutil.copy(ROOT / "train.py", root)
    for name, text in FILES.items():
        assert not (root / name).exists(), name
        (root / name).write_text(text, encoding="utf-8")
    for beginning, name in ADDITIONS.items():
        (text,) = [text for text in EXAMPLES if text.startswith(beginning)]
        with (root / name).open("a", encoding="utf-8") as file:
            file.write(f"\n\n{text}")
    return root


@pytest.fixture(scope="module")
def run(project: Path) -> Path:
    """The folder of the run that the page shows, with its metric, rule and tracker as well."""
    (command,) = [c for c in commands_of(PAGE) if any(w == "data=stripes" for w in c)]
    words = [*command[2:], *FOR_SPEED, "track.root=runs", "track.to=[ledger]"]
    words += ["evaluate.metric=val/median_recall", "evaluate.rules=[last,val,val_ece]"]
    words = [word for word in words if not word.startswith("track.wandb")]
    done = subprocess.run(
        [sys.executable, "train.py", *words],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = project.glob("runs/stripes/*")
    return folder


def test_every_part_is_in_the_config_of_the_run(run: Path) -> None:
    config = (run / "config.yaml").read_text(encoding="utf-8")
    for name in ("stripes", "small_cnn", "dropped", "stem", "reversed", "logarithmic", "linear"):
        assert re.search(rf"\b{name}$", config, flags=re.MULTILINE), name


def test_the_metric_and_the_rule_are_in_the_results(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["rules"]) == {"last", "val", "val_ece"}
    assert 0 <= summary["rules"]["val_ece"]["test"]["median_recall"] <= 1


def test_the_sampler_turns_the_order_of_the_classes_round(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    row = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0])
    drawn = row["train/class_histogram"]
    assert summary["class_counts"][0] > summary["class_counts"][-1]
    assert drawn[0] < drawn[-1]


def test_the_tracker_has_a_line_an_epoch(run: Path) -> None:
    lines = (run.parents[1] / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_the_run_can_be_loaded_with_its_own_head(project: Path, run: Path) -> None:
    script = "import sys; from engine.training.trained import load_run; load_run(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, str(run)],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
