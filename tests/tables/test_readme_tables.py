"""The README's tables are those of the committed results."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.mistakes import ConfigError
from engine.tables.readme import BEGIN, END, NO_RESULTS, README, generated, with_tables, write
from tests.tables._lines import around, lines, write_lines


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The README in a folder of its own."""
    path = tmp_path / "README.md"
    path.write_bytes(README.read_bytes())
    return path


def test_the_readme_is_what_the_committed_results_give() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_tables(text, generated()) == text, "run python -m engine.tables --readme"


def test_a_readme_that_new_results_have_outrun_is_noticed_and_brought_up_to_date(
    copy: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    write_lines(results / "tiny.jsonl", lines("cross_entropy", around(0.8)))
    assert write(copy, results)
    assert not write(copy, results)
    assert "0.800\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.005" in copy.read_text(encoding="utf-8")
    write_lines(results / "tiny.jsonl", lines("cross_entropy", around(0.9)))
    text = copy.read_text(encoding="utf-8")
    assert with_tables(text, generated(results)) != text
    assert write(copy, results)
    assert "0.900\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.005" in copy.read_text(encoding="utf-8")


def test_nothing_outside_the_markers_changes(copy: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "tiny.jsonl", lines("cross_entropy", around(0.8)))
    write(copy, tmp_path)
    old, new = README.read_text(encoding="utf-8"), copy.read_text(encoding="utf-8")
    assert new.partition(BEGIN)[0] == old.partition(BEGIN)[0]
    assert new.partition(END)[2] == old.partition(END)[2]


def test_without_results_the_readme_says_so(tmp_path: Path) -> None:
    assert generated(tmp_path) == NO_RESULTS


@pytest.mark.parametrize("text", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}{BEGIN}{END}"])
def test_a_readme_without_its_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"README\.md: needs the line"):
        write(path, tmp_path)
    assert path.read_text(encoding="utf-8") == text
