"""Which code makes a number, as twelve digits: what shows a number is no part of it."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.config import components, metrics
from engine.config.choices import CHOICES
from engine.config.components import ROOT
from engine.config.schema import Config

# A sentence beside a number changes no number.
ONLY_SHOWS = ("engine/training/notes.py",)


def code_hash(config: Config) -> str:
    """Return 12 hex digits over the code that can change a number of such a run."""
    return hash_of(code_files(config))


def hash_of(files: Sequence[Path]) -> str:
    """Return the hash of files from :func:`code_files`, but for the headings of metrics."""
    digest = hashlib.sha256()
    for file in files:
        name, content = file.relative_to(ROOT).as_posix(), file.read_bytes()
        if name == metrics.PATH.relative_to(components.ROOT).as_posix():
            content = metrics.without_headings(content.decode()).encode()
        digest.update(name.encode() + b"\0")
        digest.update(content + b"\0")
    return digest.hexdigest()[:12]


def code_files(config: Config) -> list[Path]:
    """Return the files that can change a number of such a run, sorted.

    What may be asked (``engine/config``, but for its calendar) is in the run's config, and what
    shows a number (``engine/report``) comes after it. Of the files that are choices only the chosen
    ones count: a sampler that somebody adds leaves the hash of all other runs alone.
    """
    chosen = chosen_files(config)
    folders = {package: ROOT.joinpath(*package.split(".")) for package in chosen}
    files = {ROOT / "train.py", ROOT / "engine" / "config" / "calendar.py"}
    trained_by = (ROOT / "engine" / "training").rglob("*.py")
    files |= {file for file in trained_by if file.parent not in folders.values()}
    for package, names in chosen.items():
        files |= set(folders[package].glob("_*.py"))
        for name in names:
            files |= _with_siblings(folders[package] / f"{name}.py")
    return sorted(files - {ROOT / name for name in ONLY_SHOWS})


def chosen_files(config: Config) -> dict[str, set[str]]:
    """Return ``{package: names of its files that this run uses}``; equal ones hash the same code.

    Beside them every run uses the files that are no choice.
    """
    found = {"data": {config.data.name}, "losses": {config.loss.name}, "models": set[str]()}
    if (model := components.registered_models().get(config.model.name)) is not None:
        found["models"].add(model.family)
    for choice in CHOICES:
        section: Any = getattr(config, choice.section)
        names = {getattr(section, choice.selector.rpartition(".")[2])}
        if getattr(section, "start", 0.0) > 0:  # until then it is the default
            names.add(choice.default)
        found[choice.package] = names & choice.components.keys()
    return found


def _with_siblings(file: Path) -> set[Path]:
    """Return a file and the files of its folder that it imports, directly or through others."""
    found, new = set[Path](), {file}
    while new:
        found |= new
        modules = {name for path in new for name in _siblings_in(path.read_bytes())}
        new = {path for m in modules if (path := file.with_name(f"{m}.py")).exists()} - found
    return {path for path in found if not path.stem.startswith("_")}


@functools.lru_cache(maxsize=256)
def _siblings_in(source: bytes) -> frozenset[str]:
    """Return the modules of its own folder that a module's source imports.

    Kept by the source itself: a process that makes many runs reads each file anew, and parses it
    once.
    """
    return frozenset(
        node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
    )
