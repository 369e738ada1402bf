"""Components: a file is a component and its constructor's signature is its config.

``losses/softmax_focal.py`` holds the class ``SoftmaxFocal``; its keyword-only arguments are the
keys ``loss.gamma``, ``loss.alpha`` ... Signatures are read from the source with :mod:`ast`, so
listing keys for ``--help`` or refusing a typo never imports torch.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
from pydantic import Field

ROOT = Path(__file__).resolve().parents[2]

# All that an annotation of a component may use; anything else is a mistake of the component.
ANNOTATION_NAMES = {
    "Annotated": Annotated,
    "Literal": Literal,
    **{name: getattr(annotated_types, name) for name in ("Ge", "Gt", "Le", "Lt", "Interval")},
}


@dataclass(frozen=True)
class Key:
    """One config key of a component: a keyword-only argument of its constructor."""

    name: str
    annotation: Any
    default: Any
    help: str


@dataclass(frozen=True)
class Component:
    """What the source of a component says about it, without importing it."""

    package: str
    name: str
    class_name: str
    summary: str
    facts: tuple[str, ...]
    keys: tuple[Key, ...]
    class_facts: Mapping[str, Any] = field(repr=False)


def names(package: str) -> tuple[str, ...]:
    """Names of the components in ``package``: its files without a leading underscore."""
    return tuple(
        sorted(p.stem for p in _folder(package).glob("*.py") if re.fullmatch(r"[a-z]\w*", p.stem))
    )


@cache
def read(package: str, name: str) -> Component:
    """Read the component ``name`` of ``package`` from its source.

    Raises:
        TypeError: the file breaks the component rules (see the module docstring); the message says
            which. This is a mistake of the component's author, not of the user.
    """
    path = _folder(package) / f"{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    node = _component_class(tree, path)
    init = next((n for n in node.body if _is_function(n, "__init__")), None)
    doc = ast.get_docstring(node) or ""
    helps = _argument_help(doc)
    facts: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    if isinstance(init, ast.FunctionDef):
        taken = init.args
        if taken.vararg or taken.kwarg or taken.defaults or taken.posonlyargs:
            raise TypeError(f"{path.name}: __init__ takes plain facts, then keyword-only keys")
        facts = tuple(a.arg for a in init.args.args[1:])
        pairs = zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
        keys = tuple(_key(argument, default, helps, path) for argument, default in pairs)
    return Component(
        package=package,
        name=name,
        class_name=node.name,
        summary=doc.split("\n\n")[0].replace("\n", " ").strip(),
        facts=facts,
        keys=keys,
        class_facts={**_base_facts(package), **_literals(node)},
    )


def build(package: str, name: str, keys: Mapping[str, Any], **facts: Any) -> Any:
    """Import the component and construct it from config ``keys`` and the run's ``facts``.

    A component receives only the facts that its signature names.
    """
    component = read(package, name)
    cls = getattr(importlib.import_module(f"{package}.{name}"), component.class_name)
    return cls(*(facts[fact] for fact in component.facts), **keys)


def _folder(package: str) -> Path:
    return ROOT.joinpath(*package.split("."))


def _is_function(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == name


def _component_class(tree: ast.Module, path: Path) -> ast.ClassDef:
    expected = "".join(part.capitalize() for part in path.stem.split("_"))
    public = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    found = [n for n in public if n.name.lower() == expected.lower()]
    if len(found) != 1 or len(public) != 1:
        raise TypeError(f"{path.name}: expected exactly one public class, named {expected}")
    return found[0]


def _key(argument: ast.arg, default: ast.expr | None, helps: dict[str, str], path: Path) -> Key:
    if argument.annotation is None or default is None:
        raise TypeError(f"{path.name}: key {argument.arg!r} needs an annotation and a default")
    source = ast.unparse(argument.annotation)
    try:
        annotation = eval(source, {"__builtins__": _BUILTINS, **ANNOTATION_NAMES})
        value = ast.literal_eval(default)
    except (NameError, ValueError) as error:
        raise TypeError(f"{path.name}: key {argument.arg!r}: {error}") from error
    if argument.arg not in helps:
        raise TypeError(f"{path.name}: key {argument.arg!r} is missing from the docstring's Args")
    return Key(argument.arg, annotation, value, helps[argument.arg])


_BUILTINS = {t.__name__: t for t in (float, int, bool, str, tuple)} | {"None": None}


def _argument_help(doc: str) -> dict[str, str]:
    """The Args block of a Google-style docstring: ``{argument: text on one line}``."""
    block = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)+)", doc, flags=re.MULTILINE)
    if not block:
        return {}
    entries = re.split(r"^[ ]{4}(?=\w+(?: \([^)]*\))?:)", block.group(1), flags=re.MULTILINE)
    found = (re.match(r"(\w+)(?: \([^)]*\))?:\s*(.*)", e, flags=re.DOTALL) for e in entries)
    return {m.group(1): " ".join(m.group(2).split()).replace("``", "") for m in found if m}


@cache
def _base_facts(package: str) -> dict[str, Any]:
    """Class facts that the package's base class states for all its components."""
    path = _folder(package) / "_base.py"
    if not path.exists():
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found |= _literals(node)
    return found


def _literals(node: ast.ClassDef) -> dict[str, Any]:
    """ClassVar assignments of literals in a class body."""
    found = {}
    for statement in node.body:
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and statement.value is not None
            and "ClassVar" in ast.unparse(statement.annotation)
        ):
            fact = statement.target.id
            try:
                found[fact] = ast.literal_eval(statement.value)
            except ValueError as error:
                raise TypeError(f"{node.name}: class fact {fact!r} must be a literal") from error
    return found


def pydantic_fields(component: Component) -> dict[str, Any]:
    """Field definitions for ``pydantic.create_model``: ``{key: (annotation, Field(...))}``."""
    return {
        key.name: (key.annotation, Field(default=key.default, description=key.help))
        for key in component.keys
    }
