"""What the README shows works as written; its commands and links are tested in test_docs.py."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from engine.config.components import ROOT
from tests._documents import blocks, commands_of
from tests._runs import folder_of, small_run, small_words

README = (ROOT / "README.md").read_text(encoding="utf-8")
(LOSS,) = [text for text in blocks(README, "python") if text.startswith("# losses/")]
LOSS_NAME = Path(LOSS.splitlines()[0].removeprefix("# ")).stem


def test_the_readme_can_be_read_in_five_minutes() -> None:
    assert len(README.splitlines()) <= 170
    assert len(README.encode()) <= 12_000


def test_every_entry_of_the_map_exists() -> None:
    (tree,) = [text for text in blocks(README, "") if text.startswith("train.py ")]
    entries = [re.split(r"\s{2,}", line) for line in tree.splitlines()]
    named = [word.strip(",") for entry in entries for word in entry if "/" in word or ".py" in word]
    words = [w.strip(",") for text in named for w in text.split() if re.search(r"/|\.py$", w)]
    assert len(words) >= 14
    assert [word for word in words if not (ROOT / word).exists()] == []


def test_a_trained_model_is_used_as_the_readme_says(tmp_path: Path) -> None:
    small_run(tmp_path)
    (text,) = [text for text in blocks(README, "python") if "load_run" in text]
    shown = re.search(r'load_run\("([^"]+)"\)', text)
    assert shown
    folder = folder_of(tmp_path)
    names: dict[str, object] = {"images": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)}
    exec(text.replace(shown[1], str(folder)), names)
    assert names["probabilities"].shape == (2, 4)  # type: ignore[attr-defined]
    assert len(names["names"]) == 2  # type: ignore[arg-type]


# --- the loss of one's own ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project to which the README's loss was added, one file."""
    root = tmp_path_factory.mktemp("project")
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("engine", "losses", "data", "models"):
        shutil.copytree(ROOT / package, root / package, ignore=ignored)
    shutil.copy(ROOT / "train.py", root)
    (root / f"losses/{LOSS_NAME}.py").write_text(LOSS, encoding="utf-8")
    return root


def run_in(project: Path, *words: str) -> Sequence[str]:
    """Run Python there, which must succeed, and return what it printed."""
    done = subprocess.run(
        [sys.executable, *words], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_the_loss_of_the_readme_trains_by_adding_one_file(project: Path) -> None:
    (command,) = [c for c in commands_of(README) if f"loss={LOSS_NAME}" in c]
    run_in(project, "train.py", *small_words(project / "runs", *command[2:], "schedule.epochs=1"))
    (config,) = project.glob("runs/*/*/config.yaml")
    assert "q: 0.5" in config.read_text(encoding="utf-8")


def test_the_loss_of_the_readme_keeps_what_every_loss_keeps(project: Path) -> None:
    (command,) = [c for c in commands_of(README) if c[1:3] == ("-m", "losses.conformance")]
    lines = run_in(project, *command[1:])
    assert ", 0 fail, 1 stated exception" in lines[-1]


def test_the_loss_of_the_readme_gets_a_card(project: Path) -> None:
    run_in(project, "-m", "losses.conformance", "--cards")
    text = (project / "losses/README.md").read_text(encoding="utf-8")
    assert f"| [{LOSS_NAME}](#{LOSS_NAME}) |" in text
    assert f"### {LOSS_NAME}\n" in text
