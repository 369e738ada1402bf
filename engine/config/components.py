"""Components: a file is a component and its constructor's signature is its config.

``losses/softmax_focal.py`` holds the class ``SoftmaxFocal``; its keyword-only arguments are the
keys ``loss.gamma``, ``loss.alpha`` ... What several components share, such as the long tail of
:class:`data.Imbalance`, is a dataclass whose fields are the keys. Sources are read with :mod:`ast`,
so listing keys for ``--help`` or refusing a typo never imports torch.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pydantic import Field

from engine.config.annotations import annotation_of
from engine.config.mistakes import ComponentError, ConfigError

ROOT = Path(__file__).resolve().parents[2]
_FILE = re.compile(r"([a-z]\w*)\.py")

# What a run tells the components of a package that ask for it: positional arguments, never keys.
FACTS = {
    "losses": ("a loss", ("class_counts", "num_classes", "old_classes")),
    "data": ("a data set", ("root", "raw_data")),
    "models.heads": ("a head", ("num_features", "num_outputs", "init", "prior")),
    "engine.report.tracking": ("a tracker", ("run", "say")),
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


class Found(NamedTuple):
    """What the files of a package say, and which of them cannot be read."""

    components: Mapping[str, Component]
    mistakes: tuple[ComponentError, ...]


def folder(package: str) -> Path:
    """Return the folder of a package such as ``data.samplers``."""
    return ROOT.joinpath(*package.split("."))


def names(package: str) -> tuple[str, ...]:
    """Return the components of ``package``: its files without a leading underscore."""
    # Asked for eight times a config: a table of a thousand rows would list folders for a second.
    path = f"{ROOT}{os.sep}{package.replace('.', os.sep)}"
    try:
        changed = os.stat(path).st_mtime_ns  # noqa: PTH116 - making a Path takes twice as long
        known = _LISTED.get(path)
        if known is not None and known.changed == changed:
            return known.names
        files = os.listdir(path)  # noqa: PTH208 - as above
    except FileNotFoundError:
        return ()
    found = tuple(match[1] for match in map(_FILE.fullmatch, sorted(files)) if match)
    # A file that is added within a tick of the clock may leave the folder's time as it is.
    if time.time_ns() - changed > _TICK:
        _LISTED[path] = _Listing(changed, found)
    return found


class _Listing(NamedTuple):
    """The components of a folder, and when a file was last added to it or taken away."""

    changed: int
    names: tuple[str, ...]


_LISTED: dict[str, _Listing] = {}
_TICK = 2_000_000_000
"""Nanoseconds within which a file system may not tell two changes apart."""


@cache
def read(package: str, name: str) -> Component:
    """Read the component ``name`` of ``package`` from its source.

    Raises:
        ComponentError: the file breaks the component rules (see the module docstring).
    """
    path = folder(package) / f"{name}.py"
    node = _component_class(parsed(path), path)
    init = next((n for n in node.body if _is_function(n, "__init__")), None)
    doc = ast.get_docstring(node) or ""
    helps = _argument_help(doc)
    facts: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    if isinstance(init, ast.FunctionDef):
        taken = init.args
        if taken.vararg or taken.kwarg or taken.defaults or taken.posonlyargs:
            raise _wrong(path, "__init__ takes plain facts, then keyword-only keys")
        facts = _known_facts(package, tuple(a.arg for a in init.args.args[1:]), path)
        pairs = zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
        keys = tuple(_key(argument, default, helps, path) for argument, default in pairs)
    return Component(
        package=package,
        name=name,
        class_name=node.name,
        summary=_summary(doc),
        facts=facts,
        keys=keys,
        class_facts={**_base_facts(package), **_literals(node, path)},
    )


@cache
def read_all(package: str) -> Found:
    """Read every component of ``package`` that can be read."""
    found, mistakes = {}, []
    for name in names(package):
        try:
            found[name] = read(package, name)
        except ComponentError as error:
            mistakes.append(error)
    return Found(found, tuple(mistakes))


@cache
def read_dataclass(package: str, file: str, name: str) -> Component:
    """Read the dataclass ``name`` of a file: each of its fields is a key.

    Raises:
        ComponentError: a field has no literal default or no help; as for :func:`read`.
    """
    path = folder(package) / f"{file}.py"
    node = next(n for n in parsed(path).body if isinstance(n, ast.ClassDef) and n.name == name)
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
        class_facts=_literals(node, path),
    )


@cache
def registered_models() -> dict[str, Model]:
    """Return the models that the files of ``models/`` register in timm, by name."""
    return {
        node.name: Model(file, _summary(ast.get_docstring(node) or ""))
        for file, tree in _model_files()[0].items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(d).rpartition(".")[2] == "register_model" for d in node.decorator_list)
    }


def model_mistakes() -> tuple[ComponentError, ...]:
    """Return what is wrong with files of ``models/`` that cannot be read."""
    return _model_files()[1]


@cache
def _model_files() -> tuple[dict[str, ast.Module], tuple[ComponentError, ...]]:
    trees, mistakes = {}, []
    for file in names("models"):
        try:
            trees[file] = parsed(folder("models") / f"{file}.py")
        except ComponentError as error:
            mistakes.append(error)
    return trees, tuple(mistakes)


def constant(package: str, file: str, name: str) -> Any:
    """Return a constant of a module, which is a literal there, without importing it.

    Raises:
        ComponentError: the file is not Python.
        LookupError: it assigns no literal to ``name``.
    """
    for node in parsed(folder(package) / f"{file}.py").body:
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == [name]:
            return ast.literal_eval(node.value)
    raise LookupError(f"{package}.{file} has no constant {name}")


def build(package: str, name: str, keys: Mapping[str, Any], **facts: Any) -> Any:
    """Import the component and construct it from config ``keys`` and the run's ``facts``.

    A component receives only the facts that its signature names.

    Raises:
        ComponentError: the file cannot be imported.
    """
    return class_of(package, name)(*(facts[fact] for fact in read(package, name).facts), **keys)


def class_of(package: str, name: str) -> type:
    """Import the class of a component.

    Raises:
        ComponentError: the file cannot be imported.
    """
    found: type = getattr(imported(package, name), read(package, name).class_name)
    return found


def imported(package: str, name: str) -> ModuleType:
    """Import the file of a component.

    Raises:
        ComponentError: it cannot be imported.
    """
    try:
        return importlib.import_module(f"{package}.{name}")
    except ConfigError:
        raise
    except Exception as error:
        path = folder(package) / f"{name}.py"
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        where = f"line {lines[-1]}: " if lines else ""
        raise _wrong(path, f"{where}{type(error).__name__}: {error}") from error


def path_of(path: Path) -> str:
    """Return a file of ours as messages name it: ``losses/ldam.py``."""
    return path.relative_to(ROOT).as_posix()


def _wrong(path: Path, message: str, *, key: str | None = None) -> ComponentError:
    return ComponentError(path_of(path), message, key=key)


def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file of ours.

    Raises:
        ComponentError: it is not Python.
    """
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise _wrong(path, f"line {error.lineno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise _wrong(path, "is not UTF-8 text") from error


def _known_facts(package: str, facts: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """Return the facts, all of which a run can tell."""
    kind, known = FACTS.get(package, ("a file of this folder", ()))
    for fact in facts:
        if fact not in known:
            may = f"may name {', '.join(known)}" if known else "has keyword-only keys alone"
            raise _wrong(path, f"no run knows {fact!r}; {kind} {may}")
    return facts


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
        raise _wrong(path, f"expected exactly one public class, named {expected}")
    return found[0]


def _key(argument: ast.arg, default: ast.expr | None, helps: dict[str, str], path: Path) -> Key:
    name = argument.arg
    if argument.annotation is None or default is None:
        raise _wrong(path, "needs an annotation and a default", key=name)
    try:
        annotation = annotation_of(argument.annotation)
    except ValueError as error:
        raise _wrong(path, str(error), key=name) from error
    try:
        value = ast.literal_eval(default)
    except ValueError as error:
        text = f"has the default {ast.unparse(default)}; it must be a literal, such as 0.5"
        raise _wrong(path, text, key=name) from error
    if name not in helps:
        raise _wrong(path, "is missing from the docstring's Args", key=name)
    return Key(name, annotation, value, helps[name])


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
    for node in parsed(path).body:
        if isinstance(node, ast.ClassDef):
            found |= _literals(node, path)
    return found


def _literals(node: ast.ClassDef, path: Path) -> dict[str, Any]:
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
                raise _wrong(path, f"class fact {fact!r} must be a literal") from error
    return found


def pydantic_fields(component: Component) -> dict[str, Any]:
    """Return the arguments of ``pydantic.create_model``: ``{key: (annotation, Field(...))}``."""
    return {
        key.name: (key.annotation, Field(default=key.default, description=key.help))
        for key in component.keys
    }
