"""A data set is one file: found in YAML, on the command line, in the help and in a sweep."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config.components import ROOT

STRIPES = '''
"""Stripes: the class is how wide they are."""

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge

from data._base import Labelled, Pool


class Stripes:
    """Drawn stripes of one to three pixels.

    Args:
        per_class: Images of each class, in training and in test.
    """

    shared_defaults: ClassVar[dict[str, object]] = {
        "imbalance.factor": 2.0,
        "validation.per_class": 4,
    }

    def __init__(self, *, per_class: Annotated[int, Ge(8)] = 20) -> None:
        self._per_class = per_class

    def load(self) -> Pool:
        columns = torch.arange(8)
        rows = [(columns // (label + 1) % 2) * 200 for label in range(3)]
        images = torch.stack(rows).to(torch.uint8)[:, None, None, :].expand(3, 1, 8, 8)
        part = Labelled(
            images.repeat_interleave(self._per_class, 0),
            torch.arange(3).repeat_interleave(self._per_class),
        )
        return Pool(train=part, test=part, class_names=("one", "two", "three"), title="Stripes")
'''
WORDS = (
    *("schedule.epochs=1", "optim.batch_size=8", "runtime.threads=1"),
    *("track.wandb=disabled", "track.figures=false", "model=cifar_resnet8"),
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a run and a sweep need, with one more file."""
    copy = tmp_path_factory.mktemp("copy")
    for package in ("engine", "data", "losses", "models"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, copy / package, ignore=ignored)
    for file in ROOT.glob("*.py"):
        shutil.copy(file, copy)
    (copy / "data" / "stripes.py").write_text(STRIPES, encoding="utf-8")
    (copy / "stripes.yaml").write_text("data: {name: stripes, per_class: 12}\n", encoding="utf-8")
    return copy


def python(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=repository,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_new_data_set_is_trained_on_from_yaml_and_the_command_line(repository: Path) -> None:
    done = python(repository, "train.py", "stripes.yaml", "data.validation.per_class=2", *WORDS)
    assert done.returncode == 0, done.stderr
    (summary,) = repository.glob("runs/stripes/*/summary.json")
    rows = json.loads(summary.read_text())["rules"]["last"]["classes"]
    # 12 of a class over 12, 12 / sqrt(2) and 6, of which the head gives two to validation.
    assert [(row["name"], row["train_images"]) for row in rows] == [
        ("one", 10),
        ("two", 8),
        ("three", 6),
    ]


def test_a_new_data_set_is_in_the_help_with_its_keys_and_its_defaults(repository: Path) -> None:
    names = python(repository, "train.py", "--help").stdout
    assert "stripes" in names
    helped = " ".join(python(repository, "train.py", "--help", "data=stripes").stdout.split())
    assert "data.per_class=20 Images of each class, in training and in test." in helped
    printed = python(repository, "train.py", "data=stripes", "--print-config").stdout
    assert "factor: 2.0" in printed
    done = python(repository, "train.py", "data=stripes", "data.per_class=3")
    assert (done.returncode, done.stderr.splitlines()[1:]) == (2, [])
    assert done.stderr.startswith("data.per_class=3: expected a whole number >= 8")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("data.per_class", "data.per_class: makes another task of it"),
        ("data.per_clas", "data.per_class"),
    ],
)
def test_a_search_space_knows_the_keys_of_a_new_data_set(
    repository: Path, key: str, expected: str
) -> None:
    (repository / "search.yaml").write_text(
        "metric: val/accuracy\nbudget: {trials: 1}\nsampler: random\npruner: none\n"
        f"space:\n  {key}: {{int: [8, 12]}}\n"
    )
    done = python(repository, "sweep.py", "stripes.yaml", "--search", "search.yaml", *WORDS)
    assert done.returncode == 2
    assert expected in done.stderr
