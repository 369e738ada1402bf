"""The tables of docs/results.md and of the README are those of the committed results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.config.mistakes import ConfigError
from engine.tables.readme import (
    BEGIN,
    END,
    EXTRACT_ROWS,
    NO_RESULTS,
    README,
    RESULTS_PAGE,
    extract,
    generated,
    with_tables,
    write,
)
from tests.tables._lines import around, lines, write_lines


@pytest.fixture
def pages(tmp_path: Path) -> tuple[Path, Path]:
    """The README and the page of results in a folder of their own."""
    for page in (README, RESULTS_PAGE):
        (tmp_path / page.name).write_bytes(page.read_bytes())
    return tmp_path / README.name, tmp_path / RESULTS_PAGE.name


@pytest.mark.parametrize(("page", "made"), [(README, extract), (RESULTS_PAGE, generated)])
def test_a_page_is_what_the_committed_results_give(page: Path, made: object) -> None:
    assert callable(made)
    text = page.read_text(encoding="utf-8")
    assert with_tables(text, made()) == text, "run python -m engine.tables --readme"


def test_pages_that_new_results_have_outrun_are_brought_up_to_date(
    pages: tuple[Path, Path], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    write_lines(results / "digits_lt.jsonl", lines("cross_entropy", around(0.8)))
    assert write(*pages, results=results) == ["README.md", "results.md"]
    assert write(*pages, results=results) == []
    write_lines(results / "digits_lt.jsonl", lines("cross_entropy", around(0.9)))
    assert write(*pages, results=results) == ["README.md", "results.md"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "0.900\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.005" in text


def test_nothing_outside_the_markers_changes(pages: tuple[Path, Path], tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_lines(results / "digits_lt.jsonl", lines("cross_entropy", around(0.8)))
    write(*pages, results=results)
    for page, original in zip(pages, (README, RESULTS_PAGE), strict=True):
        old, new = original.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")
        assert new.partition(BEGIN)[0] == old.partition(BEGIN)[0]
        assert new.partition(END)[2] == old.partition(END)[2]


def test_the_readme_has_six_rows_with_n_and_interval_and_a_link() -> None:
    text = extract()
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert {row.split(" ")[1] for row in rows} == set(EXTRACT_ROWS)
    assert len(rows) == 6
    header = next(line for line in text.splitlines() if line.startswith("| method"))
    for word in ("balanced", "difference to cross_entropy [95 %], n = ", "many (", "few ("):
        assert word in header
    assert "](docs/results.md)" in text


def test_one_run_is_not_said_in_the_plural() -> None:
    text = generated()
    assert "\n1 run, " in text
    assert "1 runs" not in text
    assert "of 1 runs" not in text


def test_without_results_the_pages_say_so(tmp_path: Path) -> None:
    assert generated(tmp_path) == extract(tmp_path) == NO_RESULTS


@pytest.mark.parametrize("text", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}{BEGIN}{END}"])
@pytest.mark.parametrize("broken", [0, 1])
def test_a_page_without_its_markers_is_named_and_neither_is_written(
    pages: tuple[Path, Path], tmp_path: Path, text: str, broken: int
) -> None:
    pages[broken].write_text(text, encoding="utf-8")
    before = [page.read_text(encoding="utf-8") for page in pages]
    with pytest.raises(ConfigError, match=rf"{pages[broken].name}: needs the line"):
        write(*pages, results=tmp_path)
    assert [page.read_text(encoding="utf-8") for page in pages] == before


def differences(section: str, table: str) -> dict[str, str]:
    """Map the methods of a table of docs/results.md to their differences in balanced accuracy."""
    page = RESULTS_PAGE.read_text(encoding="utf-8").split(f"### {section}\n", 1)[1]
    rows = page.split(f"**{table}**", 1)[1].strip().split("\n\n", 1)[0].splitlines()
    column = rows[0].split(" | ").index(next(c for c in rows[0].split(" | ") if "difference" in c))
    return {row.split(" | ")[0].strip("| "): row.split(" | ")[column] for row in rows[2:]}


def test_what_the_page_on_losses_says_of_digits_is_in_the_table() -> None:
    text = " ".join((RESULTS_PAGE.parent / "losses.md").read_text(encoding="utf-8").split())
    assert "softmax focal is not distinguishable from cross-entropy in balanced accuracy" in text
    assert (
        "LADE, balanced softmax, logit adjustment at tau 1.5, balanced sigmoids and LDAM-DRW lead"
        in text
    )
    found = differences("Digits-LT", "Digits, factor 50: test, rule val")
    assert not found["softmax_focal"].startswith("**")
    methods = ("lade", "balanced_softmax", "logit_adjustment_tau_1.5", "ldam_drw")
    for method in (*methods, "balanced_binary_cross_entropy"):
        assert found[method].startswith("**+"), f"{method} no longer leads: {found[method]}"


def test_differences_that_the_results_sum_up_for_digits_are_in_a_table() -> None:
    page = RESULTS_PAGE.read_text(encoding="utf-8")
    paragraph = page.split("On Digits-LT at factor 50", 1)[1].split("\n\n", 1)[0]
    cells = {number for cell in page.split("|") for number in cell.strip("* ").split()[:1]}
    said = re.findall(r"[+−]0\.\d{3}", paragraph)
    assert said
    assert [number for number in said if number not in cells] == []
