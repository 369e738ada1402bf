"""Every command, path, key and link of the pages and of the help texts is one that works."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from engine.config import command_line
from engine.config.load import fingerprint, load
from engine.prediction.command_line import USAGE
from tests._documents import (
    PAGES,
    Command,
    blocks,
    check_command,
    commands_of,
    commands_of_help,
    keys_of,
    name_of,
    paths_of,
)
from tests._source_tree import ROOT, files

TEXTS = {name_of(path): path.read_text(encoding="utf-8") for path in PAGES}
# Those that use what a page adds to the project run in test_readme.py and test_extending.py.
ADDED = ("generalized_cross_entropy", "data=stripes")
COMMANDS = [
    (page, command)
    for page, text in TEXTS.items()
    for command in commands_of(text)
    if not any(added in word for word in command for added in ADDED)
]
EXTENDING = TEXTS["docs/extending.md"]
PIN_FILES = sorted(ROOT.glob("requirements*.txt"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where the project's YAML files are and nothing else."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "command", [c for _, c in COMMANDS], ids=[f"{page}: {' '.join(c)}" for page, c in COMMANDS]
)
def test_every_command_of_a_page_is_accepted(command: Command) -> None:
    check_command(command)


def test_the_pages_show_commands() -> None:
    assert len(COMMANDS) > 50
    assert len([command for page, command in COMMANDS if page == "README.md"]) >= 12


def test_the_second_half_of_a_sequence_starts_from_the_run_that_the_first_makes() -> None:
    first = load([Path("experiments/incremental/digits_first.yaml")])
    shown = set(re.findall(r"=runs/digits/(\w+)", TEXTS["docs/incremental.md"]))
    assert shown == {fingerprint(first)}


@pytest.mark.parametrize("page", TEXTS)
def test_every_path_of_a_page_exists(page: str) -> None:
    assert [path for path in sorted(paths_of(TEXTS[page])) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", TEXTS)
def test_every_key_of_a_page_exists(page: str) -> None:
    known = command_line.help_text()
    keys = sorted(keys_of(TEXTS[page]))
    assert [key for key in keys if not re.search(rf"\b{re.escape(key)}[.=]", known)] == []


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, target


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(([\w/]+\.md)\)", TEXTS["README.md"]))
    assert {page for page in TEXTS if page != "README.md"} - linked == set()


def test_every_finding_is_linked_from_the_page_on_other_libraries() -> None:
    linked = re.findall(r"\]\(\.\./findings/([\w.-]+)\)", TEXTS["docs/from_other_libraries.md"])
    assert sorted(linked) == sorted(path.name for path in (ROOT / "findings").iterdir())


def test_the_smears_of_the_table_are_those_that_have_cells() -> None:
    text = TEXTS["docs/data.md"].replace("\n", " ")
    ((every, unlabelled, empty),) = re.findall(
        r"Of its (\d+) smears (\d+) have no label file and (\d+) one without", text
    )
    (held,) = re.findall(r"22,106 cells in (\d+) smears", text)
    assert int(held) == int(every) - int(unlabelled) - int(empty)


@pytest.mark.parametrize("page", TEXTS)
def test_no_line_of_a_page_is_too_long_to_read_in_a_terminal(page: str) -> None:
    own = re.sub(r"<!-- `python -m .*?<!-- The end", "", TEXTS[page], flags=re.DOTALL)
    own = re.sub(r"^```.*?^```", "", own, flags=re.DOTALL | re.MULTILINE)
    prose = [line for line in own.splitlines() if not line.startswith(("|", "![", "  `tests/"))]
    assert [line for line in prose if len(line) > 120] == []


# --- help texts and messages ----------------------------------------------------------------------


def test_every_command_of_the_help_of_predict_is_accepted() -> None:
    """Those of the other scripts are tested in test_help_texts.py."""
    commands = commands_of_help(USAGE)
    assert len(commands) >= 3
    for command in commands:
        check_command(command)


PROJECT_PATH = re.compile(
    r"(?<![\w/])(?:experiments|docs|losses|models|engine|benchmarks)/[\w/.-]+"
    r"\.(?:yaml|jsonl|py|md|csv)"
)


def strings_of(path: Path) -> str:
    """Every text of a source file; of another kind of file all of it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    nodes = ast.walk(ast.parse(text))
    return "\n".join(
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def test_every_path_and_script_that_a_message_docstring_or_yaml_names_exists() -> None:
    kinds = {".py", ".yaml", ".yml", ".toml"}
    sources = [
        path
        for path in files()
        if path.suffix in kinds and path.relative_to(ROOT).parts[0] != "tests"
    ]
    examples = {text.partition("\n")[0].removeprefix("# ") for text in blocks(EXTENDING, "python")}
    missing = set()
    for path in sources:
        text = strings_of(path)
        folders = "experiments|docs|losses|models|engine|benchmarks"
        named = set(
            re.findall(rf"(?<![\w/])(?:{folders})/[\w/.-]+\.(?:yaml|jsonl|py|md|csv)", text)
        )
        named |= set(re.findall(r"python (\w+\.py)", text))
        for module in re.findall(r"python -m ([a-z_]+(?:\.[a-z_]+)*)", text):
            own = ROOT / module.replace(".", "/")
            if not own.with_suffix(".py").exists() and not (own / "__main__.py").exists():
                missing.add(f"{name_of(path)}: python -m {module}")
        named -= examples
        missing |= {f"{name_of(path)}: {name}" for name in named if not (ROOT / name).exists()}
    assert missing == set()


# --- pages of a kind of their own -----------------------------------------------------------------

TESTS = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`( \*\w\*)?")


@pytest.mark.parametrize("page", ["docs/robustness.md", "docs/from_other_libraries.md"])
def test_every_test_that_a_page_names_exists_with_the_mark_it_says(page: str) -> None:
    rows = TESTS.findall(TEXTS[page])
    assert len(rows) >= 20
    for file, name, mark in rows:
        before, found, _ = (ROOT / file).read_text(encoding="utf-8").partition(f"def {name}(")
        assert found, f"{file}::{name}"
        of_file = re.findall(r"^pytestmark.*?(?=\n\w)", before, re.M | re.S)
        marks = before.rpartition("\n\n\n")[2] + "".join(of_file)
        for word, letter in (("slow", "s"), ("system", "r"), ("cuda", "c")):
            assert (f"pytest.mark.{word}" in marks) == (mark == f" *{letter}*"), name


def test_every_entry_of_what_survives_what_names_a_test() -> None:
    entries = re.split(r"^- \*\*", TEXTS["docs/robustness.md"], flags=re.MULTILINE)[1:]
    assert len(entries) >= 20
    assert [entry for entry in entries if not TESTS.search(entry)] == []


def test_every_row_for_those_who_come_from_elsewhere_names_a_package_and_its_version() -> None:
    text = TEXTS["docs/from_other_libraries.md"]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[1] not in ("package", "---")]
    assert len(rows) >= 47
    for there, package, here, test in rows:
        assert there.strip("| ") and here.strip()
        assert re.search(r"\d+\.\d+", package), package
        assert TESTS.search(test) or test.startswith("–"), test


def test_the_search_file_of_the_page_on_tuning_is_one(tmp_path: Path) -> None:
    from engine.tuning.search.checks import checked
    from engine.tuning.search.command_line import parse

    (text,) = blocks(TEXTS["docs/tuning.md"], "yaml")
    (tmp_path / "search.yaml").write_text(text, encoding="utf-8")
    search = parse(["--search", str(tmp_path / "search.yaml")]).search
    assert {"reweight.power", "loss.gamma"} == search.file.space.keys()
    assert checked(search)


def test_every_pinned_package_is_explained() -> None:
    pins = "".join(path.read_text() for path in PIN_FILES)
    packages = set(re.findall(r"^([\w-]+)(?:\[\w+\])?==", pins, flags=re.MULTILINE))
    section = TEXTS["CONTRIBUTING.md"].partition("## Dependencies")[2].lower()
    missing = {name for name in packages if name.lower() not in section}
    assert len(packages) > 15
    assert missing == {"types-PyYAML"}


def test_the_example_of_a_commit_keeps_the_form_it_shows() -> None:
    text = TEXTS["CONTRIBUTING.md"].partition("## Commits")[2]
    (example,) = blocks(text, "")
    subject, empty, *body = example.splitlines()
    assert len(subject) <= 72 and not subject.endswith(".")
    assert empty == "" and all(0 < len(line) <= 72 for line in body)
