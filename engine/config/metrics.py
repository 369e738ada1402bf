"""The facts of each metric, read from the catalogue without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

from engine.config.components import ROOT, parsed
from engine.config.mistakes import ComponentError

FILE = "engine/training/metrics/catalogue.py"
PATH = ROOT / FILE


@dataclass(frozen=True)
class Metric:
    """One row of the catalogue; see ``engine/training/metrics/catalogue.py``.

    Attributes:
        name: as in ``val/<name>``.
        heading: its name in words.
        better: whether more or less of it is better.
        needs: what it cannot do without.
        share: whether it is a share of something, which a table may print as a percentage.
        column: its heading in tables that show it unasked, or None.
        help: the first line of its docstring.
    """

    name: str
    heading: str
    better: Literal["max", "min"]
    needs: str | None = None
    share: bool = True
    column: str | None = None
    help: str = ""

    @property
    def is_selectable(self) -> bool:
        """Whether it can choose epochs: what needs a certain kind of task cannot."""
        return self.needs in (None, "ranking")


@cache
def metrics() -> dict[str, Metric]:
    """Return every metric by name, in the order of the catalogue.

    Raises:
        ComponentError: a row breaks the rules of the catalogue.
    """
    return {node.name: _row(node, call) for node, call in _rows(parsed(PATH))}


def selectable() -> dict[str, Metric]:
    """Return the metrics that can choose an epoch, by name."""
    return {name: metric for name, metric in metrics().items() if metric.is_selectable}


def heading(name: str) -> str:
    """Return a metric's name in words; that of an unknown one is made from its key."""
    known = metrics().get(name)
    return known.heading if known else name.replace("_", " ")


@lru_cache(maxsize=4)
def without_headings(source: str) -> str:
    """Return the source of the catalogue without what its rows only show: heading and column."""
    lines = source.encode().splitlines(keepends=True)
    shown = [
        argument
        for _, call in _rows(ast.parse(source))
        for argument in (*call.args, *(k.value for k in call.keywords if k.arg == "column"))
    ]
    for node in reversed(shown):  # from the end, so that places before stay where they are
        assert node.end_lineno is not None and node.end_col_offset is not None
        first, last = node.lineno - 1, node.end_lineno - 1
        kept = lines[first][: node.col_offset] + lines[last][node.end_col_offset :]
        lines[first : last + 1] = [kept]
    return b"".join(lines).decode()


def _rows(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, ast.Call]]:
    """Functions of the catalogue, each with its ``@metric(...)``."""
    for node in tree.body:
        for call in getattr(node, "decorator_list", ()):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "metric":
                assert isinstance(node, ast.FunctionDef)
                yield node, call


def _row(node: ast.FunctionDef, call: ast.Call) -> Metric:
    try:
        (words,) = map(ast.literal_eval, call.args)
        given: dict[str, Any] = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except ValueError as error:
        raise ComponentError(FILE, f"{node.name}: its row holds literals only") from error
    summary = (ast.get_docstring(node) or "").partition("\n")[0]
    if not summary or given.get("better") not in ("max", "min"):
        raise ComponentError(FILE, f"{node.name}: needs a docstring and better='max' or 'min'")
    return Metric(name=node.name, heading=words, help=summary, **given)
