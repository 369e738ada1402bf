"""What the README shows works as written."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config.command_line import parse
from engine.config.components import ROOT
from engine.config.load import dump, fingerprint, load
from engine.tuning.search.checks import checked
from engine.tuning.search.command_line import parse as parse_sweep
from tests._runs import small_words

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line.partition("#")[0].split()[2:]
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
    if line.startswith("python train.py")
]


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "bare")
def test_every_command_of_the_readme_is_accepted(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run folder that one of them names is one that another of them makes."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    if any("=runs/" in word for word in words):
        for others in COMMANDS:
            if not any("=runs/" in word for word in others):
                made = load(parse(others).files, parse(others).overrides)
                folder = Path("runs", made.data.name, fingerprint(made))
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "config.yaml").write_text(dump(made), encoding="utf-8")
    arguments = parse(words)
    assert load(arguments.files, arguments.overrides) is not None


def test_every_sweep_of_the_readme_is_accepted() -> None:
    commands = [
        line.partition("#")[0].split()[2:]
        for language, text in BLOCKS
        if language == "sh"
        for line in text.splitlines()
        if line.startswith("python sweep.py") and "--help" not in line
    ]
    assert len(commands) >= 2
    for words in commands:
        assert checked(parse_sweep(words).search)


def test_the_search_file_of_the_readme_is_one(tmp_path: Path) -> None:
    (text,) = [text for language, text in BLOCKS if language == "yaml" and "space:" in text]
    (tmp_path / "search.yaml").write_text(text, encoding="utf-8")
    search = parse_sweep(["--search", str(tmp_path / "search.yaml")]).search
    assert {"reweight.power", "loss.gamma"} == search.file.space.keys()
    assert checked(search)


def test_every_target_and_path_that_the_readme_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"make ([a-z-]+)", README))
    assert {"train", "sweep", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)
    paths = set(re.findall(r"(?<!tests/)(?:experiments|docs)/[\w/.]+\.(?:yaml|png|svg|py)", README))
    assert paths
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    tree = next(text for _, text in BLOCKS if text.startswith("train.py "))
    named = [line.split()[0] for line in tree.splitlines() if line[:1].strip()]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_test_that_the_readme_names_exists_with_the_mark_it_says() -> None:
    rows = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`( \*\w\*)?$", README, flags=re.MULTILINE)
    assert len(rows) >= 10
    for file, name, mark in rows:
        before, found, _ = (ROOT / file).read_text(encoding="utf-8").partition(f"def {name}(")
        assert found, name
        of_file = re.findall(r"^pytestmark.*?(?=\n\w)", before, re.M | re.S)
        marks = before.rpartition("\n\n\n")[2] + "".join(of_file)
        for word, letter in (("slow", "s"), ("system", "r"), ("cuda", "c")):
            assert (f"pytest.mark.{word}" in marks) == (mark == f" *{letter}*"), name


def test_every_pinned_package_is_explained() -> None:
    pins = (ROOT / "requirements-dev.txt").read_text() + (ROOT / "requirements.txt").read_text()
    packages = re.findall(r"^([\w-]+)==", pins, flags=re.MULTILINE)
    section = README.partition("## Dependencies")[2].partition("\n## ")[0].lower()
    explained = {name for name in packages if name.lower() in section}
    assert set(packages) - explained == {"types-PyYAML"}


def test_the_loss_of_the_readme_works_by_adding_one_file(tmp_path: Path) -> None:
    for package in ("engine", "losses", "data", "models"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "train.py", tmp_path)
    source = next(text for _, text in BLOCKS if text.startswith("# losses/"))
    name = source.splitlines()[0].removeprefix("# ")
    (tmp_path / name).write_text(source, encoding="utf-8")
    command = next(c for c in re.findall(r"`python train.py (loss=\S+ \S+)`", README))
    words = small_words(tmp_path / "runs", *command.split(), "schedule.epochs=1")
    done = subprocess.run(
        [sys.executable, "train.py", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (config,) = tmp_path.glob("runs/*/*/config.yaml")
    assert "q: 0.5" in config.read_text(encoding="utf-8")
    for argument in ("generalized_cross_entropy", "--cards"):
        subprocess.run(
            [sys.executable, "-m", "losses.conformance", argument],
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
    cards = (tmp_path / "losses/README.md").read_text(encoding="utf-8")
    assert "### generalized_cross_entropy\n" in cards
