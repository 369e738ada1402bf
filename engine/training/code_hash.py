"""Which code makes a number, as twelve digits: what shows a number is no part of it."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

from engine.config.components import ROOT


def code_hash(data: str, loss: str) -> str:
    """Return 12 hex digits over the files that can change a number of such a run.

    What may be asked (``engine/config``, but for its calendar) is in the run's config, and what
    shows a number (``engine/report``) comes after it.
    """
    files = [ROOT / "train.py", ROOT / "engine" / "config" / "calendar.py"]
    files += [*(ROOT / "engine" / "training").rglob("*.py"), *(ROOT / "models").glob("*.py")]
    for package, name in (("data", data), ("losses", loss)):
        files += [*(ROOT / package).glob("_*.py"), *_with_siblings(ROOT / package / f"{name}.py")]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0")
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _with_siblings(file: Path) -> set[Path]:
    """A file and those of its folder that it imports, and they import."""
    found, new = set[Path](), {file}
    while new:
        found |= new
        modules = {
            node.module
            for path in new
            for node in ast.walk(ast.parse(path.read_bytes()))
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
        }
        new = {path for m in modules if (path := file.with_name(f"{m}.py")).exists()} - found
    return {path for path in found if not path.stem.startswith("_")}
