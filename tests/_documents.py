"""The project's pages as tests read them: their commands, paths and keys, and who accepts those."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from engine.config import command_line
from engine.config.load import dump, load
from engine.tuning.search.checks import checked
from engine.tuning.search.command_line import parse as parse_sweep
from tests._source_tree import FOLDERS, ROOT

PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")],
    key=lambda path: path.as_posix(),
)
PROGRAMS = ("python", "make", "torchrun", "conda", "pip")
Command = tuple[str, ...]


def name_of(path: Path) -> str:
    """The path of a page from the root."""
    return path.relative_to(ROOT).as_posix()


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks in one of the languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [body for language, body in found if language in languages]


def inline_code(text: str) -> list[str]:
    """What stands in backticks outside fenced blocks."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose)]


def commands_of(text: str) -> list[Command]:
    """The commands of a page, from blocks of shell and from backticks."""
    lines = [line for body in blocks(text, "sh") for line in body.splitlines()]
    return list(_commands([*lines, *inline_code(text)]))


def commands_of_help(text: str) -> list[Command]:
    """The commands of a help text: indented, and explained after two spaces or more."""
    indented = [line.strip() for line in text.splitlines() if line.startswith("  ")]
    return list(_commands(re.split(r"\s{2,}", line)[0] for line in indented))


def _commands(lines: Iterator[str] | list[str]) -> Iterator[Command]:
    for line in lines:
        words = line.partition(" #")[0].split()
        if len(words) > 1 and words[0] in PROGRAMS and not words[1].startswith("-c"):
            yield tuple(shlex.split(line.partition(" #")[0]))


def paths_of(text: str) -> set[str]:
    """Paths of the project that are named in backticks; a test is named with its file."""
    found = set()
    for code in inline_code(text):
        for word in code.split():
            path = word.partition("::")[0].rstrip(".,;:")
            first = path.partition("/")[0]
            is_root_file = re.fullmatch(r"[\w-]+\.(py|md|cff|toml|yml|txt)", path) is not None
            if (("/" in path and first in FOLDERS) or is_root_file) and not re.search(
                r"[<>*={}]", path
            ):
                found.add(path)
    return found


def keys_of(text: str) -> set[str]:
    """Config keys that are named in backticks, without their values."""
    sections = "data|loss|reweight|sampler|model|optim|schedule|mixup|evaluate|track|runtime"
    pattern = re.compile(rf"((?:{sections})\.[a-z][\w.]*)(?:=\S*)?")
    matches = (pattern.fullmatch(word) for code in inline_code(text) for word in code.split())
    endings = (".py", ".yaml", ".json", ".jsonl")
    return {found[1] for found in matches if found and not found[1].endswith(endings)}


def check_command(command: Command) -> None:
    """Have a command's own parser accept it, in a working folder that has ``experiments/``.

    Run folders and images that it names are made there.
    """
    program, *words = command
    if program == "make":
        _check_make(words)
    elif program == "torchrun":
        check_command(("python", *words[words.index("train.py") :]))
    elif program == "python" and words[0] == "-m":
        _check_module(words[1], words[2:])
    elif program == "python":
        assert (ROOT / words[0]).is_file(), words[0]
        script, rest = words[0], words[1:]
        {
            "train.py": _check_train,
            "sweep.py": _check_sweep,
            "reproduce.py": _check_reproduce,
            "predict.py": _check_predict,
        }[script](rest)
    else:
        for word in words:
            assert "." not in word or "/" in word or (ROOT / word).exists(), word


def _check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, is_variable, _ = word.partition("=")
        pattern = rf"^{name} \?=" if is_variable else rf"^{name}:"
        assert re.search(pattern, makefile, flags=re.MULTILINE), f"make {word}"


def _check_module(module: str, words: list[str]) -> None:
    path = ROOT / module.replace(".", "/")
    files = [path.with_suffix(".py")] if path.with_suffix(".py").exists() else list(path.glob("*"))
    sources = [file.read_text(encoding="utf-8") for file in files if file.suffix == ".py"]
    if module == "pytest":
        return
    assert sources, f"python -m {module}"
    for word in words:
        if word.startswith("--"):
            assert any(f'"{word}"' in source or word in source for source in sources), word
        elif word.startswith("experiments/"):
            assert (ROOT / word).exists(), word


def _check_train(words: list[str]) -> None:
    for word in words:
        if (value := word.partition("=")[2]).startswith("runs/"):
            _make_run(Path(value))
    arguments = command_line.parse(words)
    if arguments.help is not None:
        assert command_line.help_text(arguments.help)
    else:
        assert load(arguments.files, arguments.overrides) is not None


def _make_run(folder: Path) -> None:
    """A folder that a command may name as that of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump(load()), encoding="utf-8")


def _check_sweep(words: list[str]) -> None:
    if "--help" not in words:
        assert checked(parse_sweep(words).search)


def _check_reproduce(words: list[str]) -> None:
    from engine.tables.command_line import parse, plan_of

    assert plan_of(parse(words)).cells


def _check_predict(words: list[str]) -> None:
    from engine.prediction.command_line import parse

    for word in words:
        if word.startswith("runs/"):
            _make_run(Path(word))
        elif re.fullmatch(r"\w+", word) and "--evaluate" in words:
            Path(word).mkdir(exist_ok=True)
        elif re.fullmatch(r"[\w./]+", word) and not word.endswith((".csv", ".json")):
            Path(word).touch()
    given = parse(words)
    assert given.images or given.export
