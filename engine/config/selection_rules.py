"""The selection rules by name: the classes of ``engine/training/selection.py``, read statically.

Naming a rule in ``--help``, a YAML file or a table then never imports torch.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache

from engine.config.components import ROOT

SOURCE = ROOT / "engine" / "training" / "selection.py"
FINAL = "last"
"""The rule of the final weights, which every checkpoint holds; every run keeps it."""
DEFAULT = (FINAL, "val")


@dataclass(frozen=True)
class RuleFacts:
    """What the source of a rule says about it.

    Attributes:
        name: in ``evaluate.rules``, checkpoints, summaries and tables.
        meaning: first line of its docstring, as part of a sentence.
        needs_validation: whether it chooses by the validation split.
    """

    name: str
    meaning: str
    needs_validation: bool


@cache
def catalogue() -> dict[str, RuleFacts]:
    """Return every rule by name, in the order of the source: the classes that state a ``name``."""
    classes = {
        node.name: node
        for node in ast.parse(SOURCE.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    found = {}
    for node in classes.values():
        facts = _facts(node, classes)
        if "name" in _own_facts(node):
            doc = (ast.get_docstring(node) or "").partition("\n\n")[0]
            meaning = " ".join(f"{doc[:1].lower()}{doc[1:]}".split()).rstrip(".")
            name = str(facts["name"])
            found[name] = RuleFacts(name, meaning, bool(facts["needs_validation"]))
    return found


def _facts(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> dict[str, object]:
    """Return the literals of a class and of the classes it inherits from."""
    inherited: dict[str, object] = {}
    for base in reversed(node.bases):
        if isinstance(base, ast.Name) and base.id in classes:
            inherited |= _facts(classes[base.id], classes)
    return inherited | _own_facts(node)


def _own_facts(node: ast.ClassDef) -> dict[str, object]:
    return {
        statement.target.id: statement.value.value
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and isinstance(statement.value, ast.Constant)
    }
