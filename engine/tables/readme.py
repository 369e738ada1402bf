"""The README's tables, written from the committed results between two markers."""

from __future__ import annotations

from pathlib import Path

from engine.config.components import ROOT
from engine.config.messages import counted
from engine.config.mistakes import ConfigError
from engine.tables import formats
from engine.tables.table import RESULTS, blocks_of, read_table, sheets_of
from engine.training.files import write_text

README = ROOT / "README.md"
BEGIN = "<!-- `python -m engine.tables --readme` writes what follows; edits are lost. -->"
END = "<!-- The end of what it writes. -->"
NO_RESULTS = "No results are committed yet.\n"


def generated(results: Path = RESULTS) -> str:
    """The tables of every results file in a folder, and the command that makes each.

    Raises:
        ConfigError: a file with a line that is none.
    """
    files = sorted(file for file in results.glob("*.jsonl") if file.stat().st_size)
    return "\n".join(map(_tables, files)) or NO_RESULTS


def with_tables(text: str, tables: str) -> str:
    """``text`` with ``tables`` in the place of what stands between the markers.

    Raises:
        ConfigError: it has not exactly one marker of each kind, in their order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ConfigError([f"README.md: needs the line {BEGIN} once, and {END} once below it"])
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def write(readme: Path = README, results: Path = RESULTS) -> bool:
    """Bring a README up to date; whether anything changed.

    Raises:
        ConfigError: as :func:`generated` and :func:`with_tables`.
    """
    old = readme.read_text(encoding="utf-8")
    new = with_tables(old, generated(results))
    if new != old:
        write_text(readme, new)
    return new != old


def _tables(file: Path) -> str:
    table = read_table(file)
    sheets = sheets_of(blocks_of(table), table.references)
    title = table.grid.title if table.grid else file.stem
    runs, hours = len(table.records), sum(record.seconds for record in table.records) / 3600
    made = (
        f"{counted(runs, 'run')}, {hours:.1f} hours of training: `experiments/results/{file.name}`"
    )
    if table.grid:
        made += f", by `python reproduce.py experiments/papers/{file.stem}.yaml`"
    return f"### {title}\n\n{made}.\n\n{formats.markdown(sheets)}"
