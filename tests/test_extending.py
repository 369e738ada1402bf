"""One file for one change: what is added is found wherever its kind is chosen or shown.

A checkout with one more file of each kind makes a table by ``reproduce.py``: the run behind it uses
them all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from engine.config.components import ROOT
from engine.training.run_folder import RunFolder
from tests.report import _wandb_log


@dataclass(frozen=True)
class Addition:
    """A file that is added, the words that choose it, and its key.

    Attributes:
        path: of the one file.
        text: what is in it.
        choice: the word of the command line that chooses it.
        key: its own key, None where its kind has none.
        value: of the key, in the run.
        wrong: a value of the key that is out of its range.
    """

    path: str
    text: str
    choice: str
    key: str | None = None
    value: Any = None
    wrong: Any = None


ADDED = {
    "data set": Addition(
        "data/stripes.py",
        '''"""Stripes."""

from typing import Annotated

import torch
from annotated_types import Ge

from data._base import Labelled, Pool


class Stripes:
    """Images of one bright row, which is the class.

    Args:
        per_class: How many images of each class.
    """

    def __init__(self, *, per_class: Annotated[int, Ge(8)] = 20) -> None:
        self.per_class = per_class

    def load(self) -> Pool:
        """Draw the images."""
        targets = torch.arange(4).repeat_interleave(self.per_class)
        images = torch.zeros(len(targets), 1, 8, 8, dtype=torch.uint8)
        images[torch.arange(len(targets)), 0, 2 * targets] = 200
        part = Labelled(images, targets)
        return Pool(train=part, test=part, class_names=("a", "b", "c", "d"), title="Stripes")
''',
        choice="data=stripes",
        key="data.per_class",
        value=32,
        wrong=2,
    ),
    "sampler": Addition(
        "data/samplers/tail_first.py",
        '''"""Tail-first sampling."""

from typing import Annotated

import numpy as np
from annotated_types import Ge

from data.samplers._base import Sampler


class TailFirst(Sampler):
    """A class by a negative power of its number of images.

    Args:
        eagerness: The exponent.
    """

    def __init__(self, *, eagerness: Annotated[float, Ge(0)] = 1.0) -> None:
        self.eagerness = eagerness

    def class_probabilities(self, class_counts, *, progress):
        """Return n^-eagerness, normalised."""
        weights = np.float64(class_counts) ** -self.eagerness
        return weights / weights.sum()
''',
        choice="sampler=tail_first",
        key="sampler.eagerness",
        value=9.0,
        wrong=-1.0,
    ),
    "class-weight scheme": Addition(
        "losses/weights/logarithmic.py",
        '''"""Weights by the logarithm of the class counts."""

from typing import Annotated

import torch
from annotated_types import Gt

from ._base import Scheme


class Logarithmic(Scheme):
    """Weight 1 / log(offset + n) of a class of n training images.

    Args:
        offset: Added to the count.
    """

    def __init__(self, *, offset: Annotated[float, Gt(1)] = 2.0) -> None:
        self.offset = offset

    def log_weights(self, counts):
        """Return -log(log(offset + n))."""
        return -torch.log(torch.log(self.offset + counts))
''',
        choice="reweight=logarithmic",
        key="reweight.offset",
        value=3.5,
        wrong=0.5,
    ),
    "schedule": Addition(
        "engine/training/schedules/halving.py",
        '''"""A learning rate that is halved again and again."""

from typing import Annotated

from annotated_types import Ge

from engine.training.schedules._base import Schedule


class Halving(Schedule):
    """The rate is halved at equal distances.

    Args:
        halvings: How often, over the whole of training.
    """

    def __init__(self, *, halvings: Annotated[int, Ge(1)] = 4) -> None:
        self.halvings = halvings

    def factor(self, unit, *, units, begin):
        """Return 2^-k, k halvings having passed."""
        return 0.5 ** int(unit * self.halvings / units)
''',
        choice="schedule=halving",
        key="schedule.halvings",
        value=2,
        wrong=0,
    ),
    "head": Addition(
        "models/heads/gained.py",
        '''"""A head with a gain."""

from typing import Annotated

from annotated_types import Gt
from torch import nn


class Gained(nn.Module):
    """Linear layer whose logits are multiplied.

    Args:
        num_features: D.
        num_outputs: Number of logits.
        gain: The factor.
    """

    def __init__(
        self, num_features: int, num_outputs: int, *, gain: Annotated[float, Gt(0)] = 1.0
    ) -> None:
        super().__init__()
        self.gain = gain
        self.inner = nn.Linear(num_features, num_outputs)

    def forward(self, features):
        """Return logits."""
        return self.gain * self.inner(features)
''',
        choice="model.head=gained",
        key="model.gain",
        value=2.5,
        wrong=0.0,
    ),
    "backbone family": Addition(
        "models/flat_net.py",
        '''"""The smallest of networks."""

from timm.models import register_model
from torch import nn


class FlatNet(nn.Module):
    """Mean colours, then one layer."""

    def __init__(self, in_chans: int = 3, **_: object) -> None:
        super().__init__()
        self.mix = nn.Linear(16 * in_chans, 12)

    def forward(self, images):
        """Return features (N, 12)."""
        return self.mix(nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)).relu()


@register_model
def flat_net12(*, pretrained: bool = False, in_chans: int = 3, **_: object) -> FlatNet:
    """FlatNet with 12 features, for the impatient."""
    return FlatNet(in_chans)
''',
        choice="model=flat_net12",
    ),
    "loss": Addition(
        "losses/shifted.py",
        '''"""Cross-entropy plus a constant."""

from typing import Annotated, ClassVar

import torch.nn.functional as F
from annotated_types import Ge

from ._base import Loss


class Shifted(Loss):
    """Cross-entropy plus a constant, which changes no gradient.

    Args:
        shift: The constant.
    """

    def __init__(self, *, shift: Annotated[float, Ge(0)] = 0.5) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, logits, targets, *, features=None, teacher_logits=None):
        """Return the mean."""
        return F.cross_entropy(logits, targets, weight=self.weight) + self.shift
''',
        choice="loss=shifted",
        key="loss.shift",
        value=7.5,
        wrong=-1.0,
    ),
}
KINDS = pytest.mark.parametrize("kind", ADDED)
WITH_KEYS = pytest.mark.parametrize("kind", [k for k, a in ADDED.items() if a.key is not None])


def python(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the copy as a user would, without this checkout on its path."""
    # W&B leaves the address of this process's own service to its child processes.
    foreign = ("PYTHONPATH", "WANDB")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env=environment | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with one more file of each kind; nothing else in it is changed."""
    copy = tmp_path_factory.mktemp("extended") / "checkout"
    for package in ("engine", "data", "losses", "models"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, copy / package, ignore=ignored)
    for script in ROOT.glob("*.py"):
        shutil.copy(script, copy)
    for addition in ADDED.values():
        assert not (copy / addition.path).exists()
        (copy / addition.path).write_text(addition.text, encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def method(checkout: Path) -> Path:
    """A method file that chooses every addition and sets its key."""
    content: dict[str, Any] = {}
    for addition in ADDED.values():
        key, _, value = addition.choice.partition("=")
        pairs = {key if "." in key else f"{key}.{_selector(key)}": value}
        pairs |= {} if addition.key is None else {addition.key: addition.value}
        for full, given in pairs.items():
            section, _, leaf = full.partition(".")
            content.setdefault(section, {})[leaf] = given
    path = checkout / "experiments" / "methods" / "everything.yaml"
    path.parent.mkdir(parents=True)
    text = "# All that was added (Nobody 2026).\n" + yaml.safe_dump(content)
    path.write_text(text, encoding="utf-8")
    return path


def _selector(section: str) -> str:
    return "scheme" if section == "reweight" else "name"


@pytest.fixture(scope="module")
def table(checkout: Path, method: Path) -> str:
    """What ``reproduce.py`` prints of a table whose one run uses every addition."""
    content = {
        "name": "extended",
        "title": "Extended",
        "base": [
            "data.imbalance=none",
            "data.validation.per_class=4",
            "optim.batch_size=16",
            "schedule.epochs=2",
            "schedule.warmup=0",
            "schedule.unit=epoch",
            "runtime.threads=1",
            "runtime.device=cpu",
            "track.figures=false",
        ],
        "methods": {"everything": [str(method.relative_to(checkout))]},
        "settings": {"stripes": []},
        "seeds": [0],
        "baseline": "everything",
        "rule": "val",
    }
    (checkout / "extended.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    # The same run by hand, with W&B; in one process, as the imports take longer than the training.
    words = [str(method.relative_to(checkout)), *content["base"], "track.root=by_hand"]
    # A busy machine takes long to start W&B, which is no matter here.
    program = (
        "from engine.report.tracking import _guard; _guard.PATIENCE_SECONDS = 60.0\n"
        f"import reproduce, train; assert train.main({words}) == 0; print('TABLE');"
        "assert reproduce.main(['extended.yaml', '--results', 'lines.jsonl']) == 0"
    )
    done = python(checkout, "-c", program)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.partition("TABLE")[2]


@pytest.fixture(scope="module")
def folder(checkout: Path, table: str) -> RunFolder:
    """The folder of the run that was made by hand."""
    (found,) = (path.parent for path in (checkout / "by_hand").rglob("summary.json"))
    return RunFolder(found)


@pytest.fixture(scope="module")
def full_help(checkout: Path) -> str:
    """The text of ``--help``, on one line."""
    return " ".join(python(checkout, "train.py", "--help").stdout.split())


# --- YAML, the run, W&B, the table ----------------------------------------------------------------


def values_of(config: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


@KINDS
def test_the_yaml_of_the_run_has_the_choice_and_its_key(folder: RunFolder, kind: str) -> None:
    config = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    key, _, name = ADDED[kind].choice.partition("=")
    assert values_of(config, key if "." in key else f"{key}.{_selector(key)}") == name
    if ADDED[kind].key is not None:
        assert values_of(config, ADDED[kind].key) == ADDED[kind].value


@KINDS
def test_wandb_is_told_the_choice_and_its_key(folder: RunFolder, kind: str) -> None:
    (log,) = folder.path.rglob("*.wandb")
    (run, *_) = _wandb_log.records(log, "run")
    config = _wandb_log.values_of(run.config.update)
    key, _, name = ADDED[kind].choice.partition("=")
    assert values_of(config, key if "." in key else f"{key}.{_selector(key)}") == name
    if ADDED[kind].key is not None:
        assert values_of(config, ADDED[kind].key) == ADDED[kind].value


def test_the_table_has_a_row_of_the_run(table: str, checkout: Path, method: Path) -> None:
    assert "everything" in table
    (line,) = (checkout / "lines.jsonl").read_text(encoding="utf-8").splitlines()
    record = json.loads(line)
    assert record["method"] == "everything"
    assert str(method.relative_to(checkout)) in record["words"]


def test_what_was_added_made_the_numbers(folder: RunFolder) -> None:
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    # Sampler: 28 images in each of four classes, so that n^-9 is uniform; data set: 4 x 28.
    assert [sum(row["train/class_histogram"]) for row in rows] == [112, 112]
    assert len(set(rows[0]["train/class_histogram"])) > 1
    # Schedule: two halvings in two epochs. Loss: the constant.
    assert rows[1]["lr"] == rows[0]["lr"] / 2
    assert all(row["train/loss"] > 7.5 for row in rows)
    # Head and backbone: their own weights.
    state = torch.load(folder.checkpoints / "last.pt", weights_only=True)["model"]
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert shapes["head.inner.weight"] == (4, 12)
    assert shapes["backbone.mix.weight"] == (12, 16)


# --- --help, mistakes, a search space -------------------------------------------------------------


@KINDS
def test_help_names_it_with_what_it_says_of_itself(full_help: str, kind: str) -> None:
    body = ADDED[kind].text.partition("class ")[2] if kind != "backbone family" else ""
    doc = (body or ADDED[kind].text.partition("@register_model")[2]).partition('"""')[2]
    summary = " ".join(doc.partition('"""')[0].partition("\n\n")[0].split())
    found = full_help.partition(f" {ADDED[kind].choice}")[2]
    assert found.lstrip(": ").startswith(summary)


@WITH_KEYS
def test_help_has_its_key_with_meaning_and_range(full_help: str, kind: str) -> None:
    addition = ADDED[kind]
    assert addition.key is not None
    leaf = addition.key.rpartition(".")[2]
    meaning = addition.text.partition(f"        {leaf}: ")[2].partition("\n")[0]
    row = full_help.partition(f" {addition.key}=")[2][:120]
    assert meaning in row
    assert "number >" in row


def test_a_value_out_of_range_is_one_line_for_each_key(checkout: Path, method: Path) -> None:
    keyed = [a for a in ADDED.values() if a.key is not None]
    words = [f"{addition.key}={addition.wrong}" for addition in keyed]
    done = python(checkout, "train.py", str(method), *words)
    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert {line.partition(": expected ")[0] for line in lines} == set(words)


def test_a_typo_suggests_what_was_added(checkout: Path) -> None:
    done = python(checkout, "train.py", "sampler=tail_frist", "schedule=halvin", "loss=shiftd")
    assert done.returncode == 2
    for name in ("tail_first", "halving", "shifted"):
        assert f"(did you mean {name}?)" in done.stderr


def test_its_key_is_idle_under_another_choice(checkout: Path) -> None:
    done = python(checkout, "train.py", "sampler.eagerness=3", "model.gain=2")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "sampler.eagerness: has no effect with sampler.name=instance; needs tail_first",
        "model.gain: has no effect with model.head=linear; needs gained",
    ]


SPACE = """
import sys
from pathlib import Path
from engine.tuning.search import command_line
from engine.tuning.search.checks import checked
configs = checked(command_line.parse(sys.argv[1:]).search)
print(sorted({(c.sampler.name, c.reweight.scheme, c.schedule.name, c.model.head) for c in configs}))
print(sorted({c.model.gain for c in configs}))
"""


def test_a_search_space_holds_what_was_added(checkout: Path) -> None:
    search = {
        "budget": {"trials": 2, "epochs": 2},
        "space": {
            "sampler": {"choice": ["instance", "tail_first"]},
            "sampler.eagerness": {"float": [0, 2], "where": {"sampler": "tail_first"}},
            "reweight": {"choice": ["logarithmic"]},
            "reweight.offset": {"float": [1.5, 9]},
            "schedule": {"choice": ["halving"]},
            "model.head": {"choice": ["gained"]},
            "model.gain": {"float": [0.5, 4]},
        },
    }
    (checkout / "search.yaml").write_text(yaml.safe_dump(search, sort_keys=False))
    done = python(checkout, "-c", SPACE, "--search", "search.yaml")
    assert done.stdout.splitlines() == [
        "[('instance', 'logarithmic', 'halving', 'gained'), "
        "('tail_first', 'logarithmic', 'halving', 'gained')]",
        "[0.5, 4.0]",
    ], done.stderr
    search["space"]["model.gain"] = {"float": [0, 4]}  # type: ignore[index]
    (checkout / "search.yaml").write_text(yaml.safe_dump(search, sort_keys=False))
    done = python(checkout, "-c", SPACE, "--search", "search.yaml")
    assert "model.gain=0.0: expected a number > 0" in done.stderr


def test_a_method_file_is_listed_with_its_paper(checkout: Path, method: Path) -> None:
    shown = " ".join(python(checkout, "train.py", "--help", "methods").stdout.split())
    assert f"experiments/methods/{method.name} All that was added (Nobody 2026)." in shown


def test_an_added_file_leaves_the_code_of_other_runs_alone(checkout: Path) -> None:
    program = (
        "from engine.config.load import load; from engine.training.code_hash import code_hash;"
        "print(code_hash(load()))"
    )
    assert python(checkout, "-c", program).stdout == python(ROOT, "-c", program).stdout != ""
