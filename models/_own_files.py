"""The public files of the package, each of which registers its models in timm when imported."""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from collections.abc import Mapping
from pathlib import Path

import timm

from ._wording import one_line


def names() -> list[str]:
    """Return the files by name."""
    files = pkgutil.iter_modules([str(Path(__file__).parent)])
    return [f.name for f in files if not f.ispkg and not f.name.startswith("_")]


def mistake_in(model: str) -> str:
    """Return why the file of a model cannot be imported, in one line; "" where it can.

    A model that nobody has registered may be one of a file that cannot be imported.
    """
    for file, mistake in MISTAKES.items():
        if not timm.is_model(model) or model in timm.list_models(module=file):
            return mistake
    return ""


def _import_all() -> Mapping[str, str]:
    """Import every file; return why, by file, where one cannot be."""
    found = {}
    for file in names():
        try:
            importlib.import_module(f".{file}", __package__)
        except Exception as error:  # noqa: BLE001 - whatever the file does; it is said when needed
            found[file] = _sentence(error, file=f"{file}.py")
    return found


def _sentence(error: Exception, *, file: str) -> str:
    """Return where in a file its import failed, and why."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).name == file]
    reason = f"{type(error).__name__}: {one_line(error)}"
    if isinstance(error, SyntaxError) and Path(str(error.filename)).name == file:
        lines, reason = [error.lineno], error.msg
    where = f"line {lines[-1]}: " if lines else ""
    return f"models/{file}: {where}{reason}"


MISTAKES = _import_all()
