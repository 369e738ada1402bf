"""A file is a component: what is read off its source is what Python sees, and rules are kept."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import timm

import data
import models  # noqa: F401  (registers its models in timm)
from engine.config import choices, command_line, components, schema
from engine.config.components import Component
from engine.config.load import load
from engine.config.mistakes import ComponentError, ConfigError
from tests._runs import rows_of, small_words

CACHES = (
    components.read,
    components.read_all,
    components._base_facts,
    components._model_files,
    schema.tree,
)
PACKAGES = ("losses", "data")
CHOSEN = tuple(choice.package for choice in choices.CHOICES)
SOURCES = [(p, name) for p in (*PACKAGES, *CHOSEN) for name in components.names(p)]


@pytest.fixture(params=SOURCES, ids="/".join)
def component(request: pytest.FixtureRequest) -> Component:
    package, name = request.param
    return components.read(package, name)


def imported(component: Component) -> type:
    module = importlib.import_module(f"{component.package}.{component.name}")
    found: type = getattr(module, component.class_name)
    return found


# --- the static reading is what Python sees -------------------------------------------------------


def test_keys_read_from_the_source_are_those_of_the_signature(component: Component) -> None:
    signature = inspect.signature(imported(component), eval_str=True)
    expected = [
        (p.name, p.annotation, p.default)
        for p in signature.parameters.values()
        if p.kind is p.KEYWORD_ONLY
    ]
    assert [(key.name, key.annotation, key.default) for key in component.keys] == expected


def test_facts_read_from_the_source_are_those_of_the_signature(component: Component) -> None:
    parameters = inspect.signature(imported(component)).parameters.values()
    expected = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert list(component.facts) == expected
    known = {"losses": {"class_counts", "num_classes", "old_classes"}}
    known["data"] = {"root", "raw_data"}  # the same; a data set may have a key called root
    known["models.heads"] = {"num_features", "num_outputs", "init", "prior"}
    assert set(expected) <= known.get(component.package, set())


def test_class_facts_read_from_the_source_are_those_of_the_class(component: Component) -> None:
    subject = imported(component)
    stated = {name for base in subject.__mro__ for name in _class_variables(base)}
    assert component.class_facts.keys() >= stated
    assert {k: v for k, v in component.class_facts.items() if getattr(subject, k) != v} == {}


def _class_variables(base: type) -> list[str]:
    annotations = inspect.get_annotations(base)
    return [name for name, a in annotations.items() if "ClassVar" in str(a) and name[0] != "_"]


def test_the_docstring_has_one_entry_of_args_for_each_key(component: Component) -> None:
    doc = inspect.getdoc(imported(component)) or ""
    _, _, block = doc.partition("Args:\n")
    entries = re.findall(r"^    (\w+): \S", block.partition("\n\n")[0], flags=re.MULTILINE)
    assert set(entries) - set(component.facts) == {key.name for key in component.keys}
    assert all(key.help for key in component.keys)


def test_the_summary_is_the_first_sentence_of_the_docstring(component: Component) -> None:
    doc = inspect.getdoc(imported(component)) or ""
    assert component.summary
    assert doc.replace("\n", " ").startswith(component.summary)


@pytest.mark.parametrize(
    ("file", "subject"),
    [("_imbalance", data.Imbalance), ("_notes", data.Validation), ("_augment", data.Augment)],
)
def test_keys_read_from_a_dataclass_are_its_fields(file: str, subject: Any) -> None:
    hints = get_type_hints(subject, include_extras=True)
    expected = [(f.name, hints[f.name], f.default) for f in dataclasses.fields(subject)]
    read = components.read_dataclass("data", file, subject.__name__)
    assert [(key.name, key.annotation, key.default) for key in read.keys] == expected
    assert all(key.help for key in read.keys)
    section = getattr(load().data, subject.__name__.lower())
    assert section.model_dump() == {name: default for name, _, default in expected}


def test_models_read_from_the_sources_are_those_that_timm_is_given() -> None:
    found = {name: model.family for name, model in components.registered_models().items()}
    families = components.names("models")
    given = {name: family for family in families for name in timm.list_models(module=family)}
    assert found == given
    assert all(model.summary for model in components.registered_models().values())


# --- the rules of components ----------------------------------------------------------------------


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of losses/ and data/ for throw-away components; it holds the packages' folders."""
    for package in (*PACKAGES, "engine/report/tracking"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(components.ROOT / package, tmp_path / package, ignore=ignored)
    monkeypatch.setattr(components, "ROOT", tmp_path)
    for cached in CACHES:
        cached.cache_clear()
    yield tmp_path
    for cached in CACHES:
        cached.cache_clear()


def test_a_folder_that_was_listed_before_shows_the_files_that_come_and_go(packages: Path) -> None:
    folder = packages / "losses"
    os.utime(folder, (1e9, 1e9))  # long ago, so that its list is kept
    before = components.names("losses")
    assert components.names("losses") == before
    (folder / "trial.py").write_text("", encoding="utf-8")
    assert components.names("losses") == tuple(sorted([*before, "trial"]))
    (folder / "trial.py").unlink()
    assert components.names("losses") == before


def test_a_constant_is_read_without_an_import() -> None:
    assert components.constant("data", "_notes", "OWN_SHARES") == data.OWN_SHARES
    with pytest.raises(LookupError, match="has no constant OWN"):
        components.constant("data", "_notes", "OWN")


def source(arguments: str, *, helps: str = "gamma: How strongly.", body: str = "") -> str:
    return (
        "class Trial(Loss):\n"
        f'    """A trial.\n\n    Args:\n        {helps}\n    """\n\n'
        f"{body}"
        f"    def __init__(self, {arguments}) -> None:\n        pass\n"
    )


PLAIN = source("*, gamma: float = 2.0")

BREACHES = {
    "no class": ("gamma = 1\n", "exactly one public class, named Trial"),
    "another name": (PLAIN.replace("Trial", "Attempt"), "exactly one public class, named Trial"),
    "two public classes": (PLAIN + "class Other:\n    pass\n", "exactly one public class"),
    "star": (source("*gammas: float"), "plain facts, then keyword-only keys"),
    "double star": (source("**gammas: float"), "plain facts, then keyword-only keys"),
    "fact with a default": (source("gamma: float = 2.0"), "plain facts, then keyword-only keys"),
    "positional only": (source("counts, /, *, gamma: float = 2.0"), "plain facts, then"),
    "no annotation": (source("*, gamma=2.0"), "key 'gamma' needs an annotation and a default"),
    "no default": (source("*, gamma: float"), "key 'gamma' needs an annotation and a default"),
    "computed default": (source("*, gamma: float = MAX"), "key 'gamma' has the default MAX"),
    "foreign annotation": (
        source("*, gamma: Tensor = 2.0"),
        "key 'gamma' has the annotation Tensor; a key may be float, int",
    ),
    "annotation in quotes": (
        source("*, gamma: 'torch.Tensor' = 2.0"),
        "key 'gamma' has the annotation 'torch.Tensor'; a key may be float, int",
    ),
    "list annotation": (
        source("*, gamma: list[int] = 2.0"),
        r"key 'gamma' has the annotation list\[int\]; .* tuple\[float, \.\.\.\]",
    ),
    "unknown fact": (
        source("counts, *, gamma: float = 2.0"),
        "no run knows 'counts'; a loss may name class_counts, num_classes, old_classes",
    ),
    "no Python": ("class Trial(:\n", "line 1: invalid syntax"),
    "no entry in Args": (
        source("*, gamma: float = 2.0", helps="delta: Other."),
        "key 'gamma' is missing from the docstring's Args",
    ),
    "computed class fact": (
        source("*, gamma: float = 2.0", body="    dense: ClassVar[bool] = bool(1)\n\n"),
        "class fact 'dense' must be a literal",
    ),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_of_the_component_rules_is_one_line_that_names_the_file(
    packages: Path, breach: str
) -> None:
    text, reason = BREACHES[breach]
    (packages / "losses" / "trial.py").write_text(text, encoding="utf-8")
    with pytest.raises(ComponentError, match=rf"^losses/trial\.py: .*{reason}") as caught:
        load(overrides=["loss=trial"])
    assert caught.value.file == "losses/trial.py"
    assert caught.value.key == ("gamma" if "key 'gamma'" in reason else None)
    assert len(caught.value.mistakes) == 1


def test_a_component_without_a_breach_is_read(packages: Path) -> None:
    (packages / "losses" / "trial.py").write_text(PLAIN, encoding="utf-8")
    assert load(overrides=["loss=trial", "loss.gamma=3"]).loss.gamma == 3


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("Annotated[float, Ge(0)] = -1.0", "has the default -1.0, which is not a number >= 0"),
        ("float = None", "has the default null, which is not a number"),
    ],
)
def test_a_default_that_breaks_its_own_annotation_names_the_file(
    packages: Path, argument: str, reason: str
) -> None:
    (packages / "losses" / "trial.py").write_text(source(f"*, gamma: {argument}"), encoding="utf-8")
    with pytest.raises(ComponentError) as caught:
        load(overrides=["loss=trial"])
    assert str(caught.value) == f"losses/trial.py: key 'loss.gamma' {reason}"


def test_a_file_that_cannot_be_imported_is_one_line_that_names_its_line(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import math\n\nmath.nothing\n" + PLAIN.replace("(Loss)", "")
    (packages / "trials").mkdir()
    (packages / "trials" / "trial.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(packages)
    with pytest.raises(ComponentError) as caught:
        components.build("trials", "trial", {"gamma": 1.0})
    assert str(caught.value) == (
        "trials/trial.py: line 3: AttributeError: module 'math' has no attribute 'nothing'"
    )


def test_shared_defaults_of_a_key_that_does_not_exist_name_the_file(packages: Path) -> None:
    text = (packages / "data" / "synthetic.py").read_text(encoding="utf-8")
    wrong = text.replace("shared_defaults: ClassVar", "shared: ClassVar").replace(
        "    def __init__(",
        '    shared_defaults: ClassVar[dict[str, int]] = {"augment.flop": 1}\n\n    def __init__(',
        1,
    )
    (packages / "data" / "synthetic.py").write_text(wrong, encoding="utf-8")
    with pytest.raises(ComponentError) as caught:
        load(overrides=["data=synthetic"])
    assert str(caught.value) == ("data/synthetic.py: shared_defaults: no key data.augment.flop")


def test_a_file_that_cannot_be_read_leaves_other_runs_alone(packages: Path) -> None:
    for package in ("losses", "data", "data/samplers", "engine/report/tracking"):
        (packages / package / "trial.py").write_text("class Trial(:\n", encoding="utf-8")
    assert load(overrides=["loss=softmax_focal", "loss.gamma=3"]).loss.gamma == 3
    with pytest.raises(ConfigError, match=r"did you mean loss\.gamma"):
        load(overrides=["loss=softmax_focal", "loss.gama=3"])


def test_help_goes_on_without_files_that_cannot_be_read_and_names_them_last(
    packages: Path,
) -> None:
    (packages / "losses" / "trial.py").write_text("class Trial(:\n", encoding="utf-8")
    (packages / "models").mkdir()
    (packages / "models" / "trial.py").write_text("class Trial(:\n", encoding="utf-8")
    text = command_line.help_text()
    assert "loss=softmax_focal: " in text
    assert text.splitlines()[-3:] == [
        "not shown, as they cannot be read:",
        "  losses/trial.py: line 1: invalid syntax",
        "  models/trial.py: line 1: invalid syntax",
    ]


def test_a_private_class_beside_the_component_is_allowed(packages: Path) -> None:
    (packages / "losses" / "trial.py").write_text("class _Part:\n    pass\n\n\n" + PLAIN)
    assert components.read("losses", "trial").class_name == "Trial"


def test_a_file_with_a_leading_underscore_is_no_component(packages: Path) -> None:
    (packages / "losses" / "_trial.py").write_text(PLAIN, encoding="utf-8")
    assert "_trial" not in components.names("losses")
    with pytest.raises(ConfigError, match=r"loss\.name=_trial: unknown"):
        load(overrides=["loss=_trial"])


def test_a_component_gets_the_facts_that_its_signature_names_and_no_others(tmp_path: Path) -> None:
    facts = {"root": tmp_path, "class_counts": None}
    with_root = components.read("data", "cifar10")
    without = components.read("data", "synthetic")
    assert (with_root.facts, without.facts) == (("root",), ())
    for component in (with_root, without):
        built = components.build("data", component.name, {}, **facts)
        assert type(built) is imported(component)


# --- choices that are files -----------------------------------------------------------------------

SHARING = '''
class Trial(Sampler):
    """A trial.

    Args:
        beta: Of its own.
    """

    def __init__(self, *, beta: Annotated[float, Ge(0), Lt(1)] = {default}) -> None:
        pass
'''


def samplers_with(packages: Path, text: str) -> choices.Choice:
    (packages / "data" / "samplers" / "trial.py").write_text(text, encoding="utf-8")
    return choices._choice("sampler.name", "data.samplers", default="instance", meaning="which")


def test_two_files_of_a_choice_may_have_the_same_key(packages: Path) -> None:
    choice = samplers_with(packages, SHARING.format(default="0.9999"))
    assert choice.owners()["sampler.beta"] == ("effective_number", "trial")
    _, info = choice.fields()["beta"]
    assert info.description.startswith("effective_number, trial: ")


def test_two_files_of_a_choice_cannot_give_a_key_two_meanings(packages: Path) -> None:
    choice = samplers_with(packages, SHARING.format(default="0.5"))
    reason = r"^data/samplers/trial\.py: key 'beta' has another range or default"
    with pytest.raises(ComponentError, match=reason):
        choice.fields()


def test_a_chosen_file_that_cannot_be_read_is_named(packages: Path) -> None:
    (packages / "data" / "samplers" / "trial.py").write_text("class Trial(:\n", encoding="utf-8")
    with pytest.raises(ComponentError, match=r"^data/samplers/trial\.py: line 1: invalid syntax$"):
        load(overrides=["sampler=trial"])


# --- adding a loss touches one file ---------------------------------------------------------------

SHIFTED = '''
"""Cross-entropy plus a constant."""

import torch.nn.functional as F
from typing import Annotated

from annotated_types import Ge

from losses._base import Loss


class Shifted(Loss):
    """Cross-entropy plus a constant, which changes no gradient.

    Args:
        shift: The constant.
    """

    def __init__(self, *, shift: Annotated[float, Ge(0)] = 0.5) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, logits, targets, *, features=None, teacher_logits=None):
        return F.cross_entropy(logits, targets) + self.shift
'''


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of what a run needs, with one more file."""
    copy = tmp_path / "copy"
    for package in ("engine", "data", "losses", "models"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(components.ROOT / package, copy / package, ignore=ignored)
    for file in components.ROOT.glob("*.py"):
        shutil.copy(file, copy)
    (copy / "losses" / "shifted.py").write_text(SHIFTED, encoding="utf-8")
    return copy


@pytest.mark.slow
def test_adding_a_loss_touches_one_file(repository: Path, tmp_path: Path) -> None:
    """It is named in a file, its key set on the command line, and the value arrives in training."""
    file = tmp_path / "shifted.yaml"
    file.write_text("loss: {name: shifted, shift: 1.0}\n", encoding="utf-8")
    words = small_words(tmp_path / "runs", "schedule.epochs=2")
    shifted = [str(file), "loss.shift=7.5", *words, "track.name=shifted"]
    plain = [*words, "track.name=plain"]
    # One process for both runs: the imports take longer than the training.
    both = f"import train; assert train.main({shifted}) == 0; assert train.main({plain}) == 0"
    done = python(repository, "-c", both)
    assert done.returncode == 0, done.stderr
    rows, plain_rows = (
        rows_of(next((tmp_path / "runs" / name).iterdir())) for name in ("shifted", "plain")
    )
    assert len(rows) == 2
    for row, plain_row in zip(rows, plain_rows, strict=True):
        assert row["train/loss"] == pytest.approx(plain_row["train/loss"] + 7.5)
        assert row["val/nll"] == pytest.approx(plain_row["val/nll"])


def test_an_added_loss_has_its_help_its_range_and_its_place_in_the_config(
    repository: Path,
) -> None:
    done = python(repository, "train.py", "--help", "loss=shifted")
    assert "Cross-entropy plus a constant, which changes no gradient" in done.stdout
    assert "loss.shift=0.5 The constant. (a number >= 0)" in " ".join(done.stdout.split())
    done = python(repository, "train.py", "loss=shifted", "loss.shift=-1")
    assert done.returncode == 2
    assert done.stderr.startswith("loss.shift=-1: expected a number >= 0")
    done = python(repository, "train.py", "loss=shifted", "--print-config")
    assert "\nloss:\n  name: shifted\n  shift: 0.5\n" in done.stdout


def python(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the copy as a user would, without this checkout on its path."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=repository,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
