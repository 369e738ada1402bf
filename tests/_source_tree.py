"""The project's files, and what the rules about them read: calls, keywords, violations."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data", "engine", "losses", "models")  # import none of each other
FOLDERS = (*PACKAGES, "benchmarks", "docs", "experiments", "tests", ".ci", ".github")

Rule = Callable[[ast.Module], Iterator[ast.AST]]


def files() -> list[Path]:
    """Every file of the project: the root's own and those of its folders, no caches, no runs."""
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    found = [path for path in (*ROOT.iterdir(), *inside) if path.is_file()]
    # In a worktree .git is a file, which holds a path of this machine.
    return sorted(path for path in found if not {"__pycache__", ".git"} & set(path.parts))


def sources(*folders: str) -> list[Path]:
    """The project's Python files; all of them, or those under the folders named."""
    found = [path for path in files() if path.suffix == ".py"]
    if folders:
        found = [path for path in found if path.relative_to(ROOT).parts[0] in folders]
    assert found, f"no Python files under {folders or ROOT}"
    return found


def violations(rule: Rule, paths: list[Path]) -> list[str]:
    """`file:line: source` of each node that the rule yields."""
    return [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)[:80]}"
        for path in paths
        for node in rule(ast.parse(path.read_text()))
    ]


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Each call under the tree, with the dotted name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> str | None:
    """The source of a keyword argument, None where it is not given."""
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)
