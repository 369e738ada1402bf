"""The tables of the committed results: in ``docs/results.md`` all, in the README six rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.config.components import ROOT
from engine.config.mistakes import ConfigError
from engine.tables import formats, table_file
from engine.tables.aggregate import Block
from engine.tables.layout import sheet_of
from engine.tables.record import training_seconds
from engine.tables.style import Style
from engine.tables.table import Table, blocks_of, read_table, sheets_of
from engine.training.files import write_text

README = ROOT / "README.md"
RESULTS_PAGE = ROOT / "docs" / "results.md"
BEGIN = "<!-- `python -m engine.tables --readme` writes what follows; edits are lost. -->"
END = "<!-- The end of what it writes. -->"
NO_RESULTS = "No results are committed yet.\n"

EXTRACT = "digits_lt"
EXTRACT_ROWS = (
    "cross_entropy",
    "softmax_focal",
    "class_balanced_sampling",
    "balanced_softmax",
    "logit_adjustment_tau_1.5",
    "ldam_drw",
)
EXTRACT_STYLE = Style(columns=("balanced_accuracy", "many_accuracy", "few_accuracy"))


def generated(results: Path | None = None) -> str:
    """Return the tables of every results file in a folder, and the command that makes each.

    Args:
        results: the folder; None for that of the repository.

    Raises:
        ConfigError: a file with a line that is none.
    """
    folder = results or table_file.RESULTS
    files = sorted(file for file in folder.glob("*.jsonl") if file.stat().st_size)
    return "\n".join(map(_tables, files)) or NO_RESULTS


def extract(results: Path | None = None) -> str:
    """Return six rows of one table: balanced accuracy with n and interval, head and tail.

    Args:
        results: the folder; None for that of the repository.

    Raises:
        ConfigError: a file with a line that is none.
    """
    file = (results or table_file.RESULTS) / f"{EXTRACT}.jsonl"
    if not file.exists() or not file.stat().st_size:
        return NO_RESULTS
    table = read_table(file)
    found = [_rows_of(block, EXTRACT_ROWS) for block in blocks_of(table)]
    sheets = [sheet_of(block, style=EXTRACT_STYLE) for block in found if block.rows]
    num_rows = len({record.method for record in table.records})
    note = (
        f"{found[0].scope.text}; bold: the paired difference to {found[0].baseline} has a 95 % "
        f"interval without 0. All {num_rows} rows, the other tables, and what made them: "
        "[docs/results.md](docs/results.md)."
    )
    return formats.markdown([replace(sheet, notes=()) for sheet in sheets]) + f"\n{note}\n"


def with_tables(text: str, tables: str, *, name: str = "README.md") -> str:
    """Return ``text`` with ``tables`` in the place of what stands between the markers.

    Raises:
        ConfigError: it has not exactly one marker of each kind, in their order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ConfigError([f"{name}: needs the line {BEGIN} once, and {END} once below it"])
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def write(
    readme: Path = README, page: Path = RESULTS_PAGE, *, results: Path | None = None
) -> list[str]:
    """Bring the README and the page of results up to date; return the names of what changed.

    Raises:
        ConfigError: as :func:`generated` and :func:`with_tables`; nothing is written then.
    """
    old = {path: path.read_text(encoding="utf-8") for path in (readme, page)}
    new = {
        readme: with_tables(old[readme], extract(results), name=readme.name),
        page: with_tables(old[page], generated(results), name=page.name),
    }
    changed = [path for path in new if new[path] != old[path]]
    for path in changed:
        write_text(path, new[path])
    return [path.name for path in changed]


def _rows_of(block: Block, methods: Sequence[str]) -> Block:
    return replace(block, rows=tuple(row for row in block.rows if row.method in methods))


def _tables(file: Path) -> str:
    table = read_table(file)
    sheets = sheets_of(blocks_of(table), table.references)
    title = table.description.title if table.description else file.stem
    return f"### {title}\n\n{_made(file, table)}.\n\n{formats.markdown(sheets)}"


def _made(file: Path, table: Table) -> str:
    num, hours = len(table.records), training_seconds(table.records) / 3600
    runs = "1 run" if num == 1 else f"{num} runs"
    made = f"{runs}, {hours:.1f} hours of training: `experiments/results/{file.name}`"
    if table.description:
        made += f", by `python reproduce.py experiments/papers/{file.stem}.yaml`"
    return made
