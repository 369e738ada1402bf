"""Components: a file is a component and its constructor's signature is its config.

``losses/softmax_focal.py`` holds the class ``SoftmaxFocal``; its keyword-only arguments are the
keys ``loss.gamma``, ``loss.alpha`` ... What several components share, such as the long tail of
:class:`data.Imbalance`, is a dataclass whose fields are the keys. Sources are read with :mod:`ast`,
so listing keys for ``--help`` or refusing a typo never imports torch.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

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
    """One config key: a keyword-only argument of a component, or a field of a dataclass."""

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


class Model(NamedTuple):
    """A model that a file of ``models/`` registers in timm."""

    family: str  # the file
    summary: str


def folder(package: str) -> Path:
    """Return the folder of a package such as ``data.samplers``."""
    return ROOT.joinpath(*package.split("."))


def names(package: str) -> tuple[str, ...]:
    """Return the components of ``package``: its files without a leading underscore."""
    files = folder(package).glob("*.py")
    return tuple(sorted(p.stem for p in files if re.fullmatch(r"[a-z]\w*", p.stem)))


@cache
def read(package: str, name: str) -> Component:
    """Read the component ``name`` of ``package`` from its source.

    Raises:
        TypeError: the file breaks the component rules (see the module docstring); the message says
            which. This is a mistake of the component's author, not of the user.
    """
    path = folder(package) / f"{name}.py"
    node = _component_class(_parsed(path), path)
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
        summary=_summary(doc),
        facts=facts,
        keys=keys,
        class_facts={**_base_facts(package), **_literals(node)},
    )


@cache
def read_dataclass(package: str, file: str, name: str) -> Component:
    """Read the dataclass ``name`` of a file: each of its fields is a key.

    Raises:
        TypeError: a field has no literal default or no help; as for :func:`read`.
    """
    path = folder(package) / f"{file}.py"
    node = next(n for n in _parsed(path).body if isinstance(n, ast.ClassDef) and n.name == name)
    doc = ast.get_docstring(node) or ""
    helps = _argument_help(doc)
    fields = [
        (ast.arg(statement.target.id, statement.annotation), statement.value)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and "ClassVar" not in ast.unparse(statement.annotation)
    ]
    return Component(
        package=package,
        name=file,
        class_name=name,
        summary=_summary(doc),
        facts=(),
        keys=tuple(_key(field, default, helps, path) for field, default in fields),
        class_facts=_literals(node),
    )


@cache
def registered_models() -> dict[str, Model]:
    """Return the models that the files of ``models/`` register in timm, by name."""
    return {
        node.name: Model(file, _summary(ast.get_docstring(node) or ""))
        for file in names("models")
        for node in _parsed(folder("models") / f"{file}.py").body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(d).rpartition(".")[2] == "register_model" for d in node.decorator_list)
    }


def build(package: str, name: str, keys: Mapping[str, Any], **facts: Any) -> Any:
    """Import the component and construct it from config ``keys`` and the run's ``facts``.

    A component receives only the facts that its signature names.
    """
    component = read(package, name)
    cls = getattr(importlib.import_module(f"{package}.{name}"), component.class_name)
    return cls(*(facts[fact] for fact in component.facts), **keys)


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _summary(doc: str) -> str:
    """Return the first sentence of a docstring, on one line."""
    return doc.split("\n\n")[0].replace("\n", " ").strip()


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
    """Parse the Args block of a Google-style docstring: ``{argument: text on one line}``."""
    block = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)+)", doc, flags=re.MULTILINE)
    if not block:
        return {}
    entries = re.split(r"^[ ]{4}(?=\w+(?: \([^)]*\))?:)", block.group(1), flags=re.MULTILINE)
    found = (re.match(r"(\w+)(?: \([^)]*\))?:\s*(.*)", e, flags=re.DOTALL) for e in entries)
    return {m.group(1): " ".join(m.group(2).split()).replace("``", "") for m in found if m}


@cache
def _base_facts(package: str) -> dict[str, Any]:
    """Return the class facts that the package's base class states for all its components."""
    path = folder(package) / "_base.py"
    if not path.exists():
        return {}
    found: dict[str, Any] = {}
    for node in _parsed(path).body:
        if isinstance(node, ast.ClassDef):
            found |= _literals(node)
    return found


def _literals(node: ast.ClassDef) -> dict[str, Any]:
    """Return the ClassVar assignments of literals in a class body."""
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
    """Return the arguments of ``pydantic.create_model``: ``{key: (annotation, Field(...))}``."""
    return {
        key.name: (key.annotation, Field(default=key.default, description=key.help))
        for key in component.keys
    }
