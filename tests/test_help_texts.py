"""What a help text shows exists: every path in it, and every command is accepted."""

from __future__ import annotations

import ast
import re
import shlex

import pytest

from engine.analysis import command_line as analyze_options
from engine.config import command_line
from engine.config.components import ROOT
from engine.config.load import load
from engine.config.mistakes import ConfigError
from engine.tables import command_line as reproduce_options
from engine.tables import options as table_options
from engine.tuning.search import command_line as sweep_options


def module_text(path: str) -> str:
    return ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""


TEXTS = {
    "train.py": command_line.INTRODUCTION,
    "sweep.py": sweep_options.HELP,
    "reproduce.py": reproduce_options.usage(),
    "engine.tables": table_options.USAGE,
    "analyze.py": analyze_options.USAGE,
    **{
        path.relative_to(ROOT).as_posix(): module_text(path.relative_to(ROOT).as_posix())
        for folder in ("benchmarks", "docs")
        for path in sorted((ROOT / folder).glob("*.py"))
        if path.stat().st_size
    },
}
PATH = re.compile(
    r"(?<![\w./<-])(?:[\w-]+/)+[\w-]+\.(?:yaml|py|jsonl|md|csv|png)\b"  # a file in a folder
    r"|(?<![\w./-])(?:train|sweep|reproduce|analyze)\.py\b"
)
# What a run of the command writes.
WRITTEN = re.compile(r"^(runs|predictions)/")


def commands_of(text: str) -> list[list[str]]:
    """Words of every command in a text; of a line without its explanation behind two spaces."""
    lines = [re.split(r"\s{2,}|\s#", line.strip(" `."))[0] for line in text.splitlines()]
    lines += re.findall(r"``?(python [^`]+)`", text)
    return [shlex.split(line) for line in dict.fromkeys(lines) if line.startswith("python ")]


def check_accepted(words: list[str]) -> None:
    """Parse a command line as its program would.

    Raises:
        ConfigError: the program would refuse it.
    """
    program = words[2] if words[1] == "-m" else words[1]
    rest = [word for word in words[3 if words[1] == "-m" else 2 :] if word != "..."]
    if program == "train.py":
        given = command_line.parse(rest)
        load(given.files, given.overrides)
    elif program == "sweep.py" and "--search" in rest:
        sweep_options.parse(rest)
    elif program == "reproduce.py":
        reproduce_options.plan_of(reproduce_options.parse(rest))
    elif program == "engine.tables":
        table_options.parse(rest)
    elif program == "analyze.py" and not any(WRITTEN.match(word) for word in rest):
        analyze_options.parse(rest)
    elif words[1] == "-m":
        module = ROOT / program.replace(".", "/")
        assert module.with_suffix(".py").exists() or (module / "__main__.py").exists(), program
    else:
        assert (ROOT / program).exists(), program


@pytest.mark.parametrize("name", TEXTS)
def test_every_path_in_a_help_text_exists(name: str) -> None:
    missing = [
        path
        for path in PATH.findall(TEXTS[name])
        if not (ROOT / path).exists() and not WRITTEN.match(path)
    ]
    assert missing == []


COMMANDS = [
    pytest.param(words, id=f"{name}: {' '.join(words[1:])}")
    for name, text in TEXTS.items()
    for words in commands_of(text)
]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_in_a_help_text_is_accepted(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    check_accepted(
        [re.sub(r"^(TABLE|FILE)\.yaml$", "experiments/digits_lt.yaml", w) for w in words]
    )


def test_the_texts_show_commands_of_every_program() -> None:
    programs = {words.values[0][2 if words.values[0][1] == "-m" else 1] for words in COMMANDS}
    assert {"train.py", "sweep.py", "reproduce.py", "engine.tables"} <= programs
    assert any(program.startswith("benchmarks.") for program in programs)
    assert len(COMMANDS) >= 20


def test_a_path_that_does_not_exist_and_a_command_that_is_refused_would_be_seen() -> None:
    text = "  python -m engine.tables experiments/papers/ldam.yaml --metric accuracy\n"
    (path,) = PATH.findall(text)
    assert not (ROOT / path).exists()
    with pytest.raises(ConfigError):
        check_accepted(["python", "-m", "engine.tables", "x.yaml", "--metrc", "accuracy"])
    with pytest.raises(AssertionError):
        check_accepted(["python", "-m", "benchmarks.nothing"])
