"""A sheet as Markdown, as LaTeX (booktabs), on the terminal; blocks as CSV."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from engine.tables.aggregate import Block, Row
from engine.tables.beside import published_beside
from engine.tables.layout import Entry, Sheet, apart
from engine.tables.published import SPLITS
from engine.tables.style import Style
from engine.tables.table_file import Reference

if TYPE_CHECKING:
    from rich.console import Console

GREEK = {
    "SMALL": "alpha beta gamma delta epsilon zeta eta theta iota kappa lamda mu nu xi pi rho sigma "
    "tau upsilon phi chi psi omega",
    "CAPITAL": "Gamma Delta Theta Lamda Xi Pi Sigma Upsilon Phi Psi Omega",
}
"""Letters by their names in Unicode; those that look like a Latin one have no command in LaTeX."""

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "|": r"\textbar{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "≥": r"$\geq$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": r"$-$",
    "–": "--",
    "†": r"\dag{}",
    "…": r"\ldots{}",
    "\N{NO-BREAK SPACE}": "~",
    **{
        unicodedata.lookup(f"GREEK {case} LETTER {name.upper()}"): (
            rf"$\{name.replace('amda', 'ambda')}$"
        )
        for case, names in GREEK.items()
        for name in names.split()
    },
}
"""What LaTeX reads as something else than it looks like."""

SPACE = 3
"""Characters between two columns of a terminal."""

NARROWEST = 8
"""Fewest characters a column of names is folded to; a terminal narrower than that is overrun."""

Part = tuple[str, str]
"""A text of a terminal, and its style."""


def markdown(sheets: Sequence[Sheet]) -> str:
    """Return tables as GitHub shows them, captions above, notes below, shared notes at the end."""
    sheets, shared = apart(sheets)
    parts = [_markdown_table(sheet) for sheet in sheets]
    if shared:
        parts.append("In all of these tables:\n")
        parts.append("".join(f"- {_escaped(text)}\n" for text in shared))
    return "\n".join(parts)


def _markdown_table(sheet: Sheet) -> str:
    rule = ["---", *("---:" for _ in sheet.headings[1:])]
    lines = [f"**{_escaped(sheet.caption)}**", ""]
    lines += [_line(map(_escaped, sheet.headings)), _line(rule)]
    lines += [_line(map(_markdown, row)) for row in sheet.rows]
    lines += [""] if sheet.notes else []
    lines += [f"- {_raised(mark)}{_escaped(text)}" for mark, text in sheet.notes]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(entry: Entry) -> str:
    text = _escaped(entry.text)
    if "±" in text or "[" in text:  # stays on one line; a page too narrow for the table scrolls
        text = text.replace(" ", "\N{NO-BREAK SPACE}")
    marks = _raised(",".join(entry.marks)).rstrip()
    text = f"**{text}**" if entry.is_bold else text
    return f"<u>{text}</u>{marks}" if entry.is_underlined else f"{text}{marks}"


def _raised(mark: str) -> str:
    return f"<sup>{mark}</sup> " if mark else ""


def _escaped(text: str) -> str:
    for character in "\\|*<":
        text = text.replace(character, f"\\{character}")
    return text


def latex(sheets: Sequence[Sheet]) -> str:
    """Return booktabs tables, each followed by its notes, which are no part of the float."""
    return "\n".join(map(_latex_table, sheets))


def _latex_table(sheet: Sheet) -> str:
    columns = "l" + "r" * (len(sheet.headings) - 1)
    lines = [
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(sheet.caption)}}}",
        # Made smaller where it is too wide, and never larger.
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(_latex(heading) for heading in sheet.headings) + r" \\",
        r"\midrule",
        *(" & ".join(_latex_entry(entry) for entry in row) + r" \\" for row in sheet.rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
        *(
            rf"{{\noindent\raggedright\footnotesize {_latex_mark(mark)}{_latex(text)}\par}}"
            for mark, text in sheet.notes
        ),
    ]
    return "\n".join(lines) + "\n"


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def _latex_entry(entry: Entry) -> str:
    text = rf"\textbf{{{_latex(entry.text)}}}" if entry.is_bold else _latex(entry.text)
    text = rf"\underline{{{text}}}" if entry.is_underlined else text
    if text.startswith(("[", "*")):  # which the \\ of the row before would take for its own
        text = "{}" + text
    return text + _latex_mark(",".join(entry.marks)).rstrip()


def _latex_mark(mark: str) -> str:
    return rf"\textsuperscript{{{_latex(mark)}}} " if mark else ""


def terminal(sheets: Sequence[Sheet], console: Console) -> None:
    """Print sheets; what is wider than the terminal goes on below, methods repeated."""
    from rich.text import Text

    sheets, shared = apart(sheets)
    for sheet in sheets:
        console.print(Text(sheet.caption, style="italic"))
        widths = _widths(sheet, console.width)
        for columns in _fitting(widths, console.width):
            # One text: a table of rich takes ten times as long.
            parts = _terminal_parts(sheet, columns, widths=[widths[column] for column in columns])
            console.print(Text().append_tokens(parts), soft_wrap=True)
        for mark, text in sheet.notes:
            console.print(Text(f"  [{mark}] {text}" if mark else f"  {text}"))
        console.print()
    for text in shared:
        console.print(Text(f"  {text}"))


def _fitting(widths: Sequence[int], width: int) -> list[list[int]]:
    """Group columns of these widths into tables that fit, the first column in each."""
    parts, used = [[0]], 1 + widths[0] + SPACE
    for column, needed in enumerate(widths[1:], 1):
        if used + needed + SPACE > width and len(parts[-1]) > 1:
            parts.append([0])
            used = 1 + widths[0] + SPACE
        parts[-1].append(column)
        used += needed + SPACE
    return parts


def _widths(sheet: Sheet, width: int) -> list[int]:
    """Return the characters of each column, where headings fold, and names if they must."""
    first, *others = (_width(sheet, column) for column in range(len(sheet.headings)))
    beside = max(others) + SPACE if others else 0
    left = width - 1 - SPACE - beside
    return [min(first, max(left, NARROWEST)), *others]


def _width(sheet: Sheet, column: int) -> int:
    """Return the characters a column takes when its heading may fold."""
    from rich.cells import cell_len

    words = [_with_marks(row[column]) for row in sheet.rows] + sheet.headings[column].split()
    return max(map(cell_len, words))


def _terminal_parts(
    sheet: Sheet, columns: Sequence[int], *, widths: Sequence[int]
) -> Iterator[Part]:
    """Yield a table in parts: its headings, a rule, and its rows, folded to the widths."""
    blank = " " * (sum(widths) + SPACE * len(widths) + 1)
    folded = [
        _folded(sheet.headings[column], width)
        for column, width in zip(columns, widths, strict=True)
    ]
    height = max(map(len, folded))
    raised = [[""] * (height - len(lines)) + lines for lines in folded]
    yield f"{blank}\n", ""
    for words in zip(*raised, strict=True):
        yield from _terminal_line([(word, "bold") for word in words], widths)
    yield f" {'─' * (len(blank) - 2)} \n", ""
    for row in sheet.rows:
        entries = [row[column] for column in columns]
        name, *below = _folded(_with_marks(entries[0]), widths[0])
        numbers = [(_with_marks(entry), _style(entry)) for entry in entries[1:]]
        yield from _terminal_line([(name, _style(entries[0])), *numbers], widths)
        for name in below:
            cells = [(name, _style(entries[0])), *[("", "")] * len(numbers)]
            yield from _terminal_line(cells, widths)
    yield blank, ""


def _folded(text: str, width: int) -> list[str]:
    """Return lines of at most so many characters' width, broken within a word only if it must be.

    A wide character, such as one of Chinese, takes the width of two.
    """
    from rich.cells import cell_len, chop_cells

    if cell_len(text) <= width:
        return [text]
    lines = [""]
    for part in (part for word in text.split() for part in chop_cells(word, width)):
        longer = f"{lines[-1]} {part}".lstrip()
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def _terminal_line(cells: Sequence[Part], widths: Sequence[int]) -> Iterator[Part]:
    """Yield a line from texts with their styles, the first to the left, others to the right."""
    from rich.cells import cell_len

    plain = "  "
    for number, ((text, style), width) in enumerate(zip(cells, widths, strict=True)):
        space = " " * (width - cell_len(text))
        plain += space if number else ""
        if style:
            yield plain, ""
            yield text, style
            plain = ""
        else:
            plain += text
        plain += "" if number else space
        plain += " " * (SPACE if number < len(widths) - 1 else 2)
    yield f"{plain}\n", ""


def _style(entry: Entry) -> str:
    return "bold" if entry.is_bold else "underline" if entry.is_underlined else ""


def _with_marks(entry: Entry) -> str:
    return entry.text + (f" [{','.join(entry.marks)}]" if entry.marks else "")


def csv(
    blocks: Sequence[Block], references: Sequence[Reference] = (), *, style: Style | None = None
) -> str:
    """Return one line a row of the table, every number in full; an empty cell is undefined."""
    import pandas as pd

    style = style or Style()
    lines = [_full(block, row, references, style) for block in blocks for row in block.rows]
    return pd.DataFrame(lines).to_csv(index=False, lineterminator="\n")


def _full(block: Block, row: Row, references: Sequence[Reference], style: Style) -> dict[str, Any]:
    line: dict[str, Any] = {
        "table": block.table,
        "setting": block.setting,
        "method": row.method,
        "label": style.label(row.method),
        "config": row.records[0].group,
        "rule": block.rule,
        "runs": len(row.records),
        "seeds": row.num_seeds,
        "subsets": row.num_splits,
    }
    for metric, score in row.scores.items():
        mean, std, n = score.summary or (None, None, 0)
        line |= {metric: mean, f"{metric}_std": std, f"{metric}_n": n}
        found = score.difference
        line |= {
            f"{metric}_difference": None if found is None else found.mean,
            f"{metric}_low": None if found is None else found.low,
            f"{metric}_high": None if found is None else found.high,
            f"{metric}_independent": None if found is None else str(found.n),
            f"{metric}_is_distinguishable": None if found is None else found.is_distinguishable,
        }
    line |= {f"cost_{name}": value for name, value in row.costs.items()}
    if row.oracle is not None:
        line |= {"oracle": row.oracle[0], "oracle_gap": row.oracle[1]}
    for reference in references:
        for metric, split in SPLITS.items():
            number = published_beside(row, reference, rule=block.rule, metric=metric)
            if number is not None:
                place = f"{reference.paper} {reference.table}"
                place += "" if split == "all" else f" {split}"
                line |= {place: number.accuracy, f"{place} differs in": number.reasons}
    line["notes"] = "; ".join(row.notes)
    return line
