"""``--variance``: what of a table's spread is due to setting, row, subset and seed."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats

from engine.tables.__main__ import main
from engine.tables.record import RunRecord
from tests.tables._lines import line, write_lines

SETTINGS = {"plain": 0.0, "sam": 0.1}
METHODS = {"cross_entropy": 0.0, "focal": 0.02}
NOISE = [0.01, -0.01, -0.01, 0.01]
SHARED = {
    "cross_entropy": [0.50, 0.60, 0.70, 0.55, 0.65],
    "focal": [0.51, 0.62, 0.71, 0.565, 0.67],
}


def runs(seeds: tuple[int, ...] = (0, 1), subsets: tuple[int, ...] = (0,)) -> list[RunRecord]:
    """Runs whose setting moves them by 0.1, their row by 0.02, their seed by 0.01 either way."""
    places = [(s, m, b, k) for s in SETTINGS for m in METHODS for b in subsets for k in seeds]
    return [
        line(
            method,
            seed=seed,
            subset=subset,
            setting=setting,
            value=0.5 + SETTINGS[setting] + METHODS[method] + NOISE[(seed + 2 * subset) % 4],
            fingerprint=f"{number:012x}",
        )
        for number, (setting, method, subset, seed) in enumerate(places)
    ]


def rows(results: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, list[str]]:
    assert main([str(results), "--variance", "--format", "markdown", *words]) == 0
    lines = [row for row in capsys.readouterr().out.splitlines() if row.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in lines]
    return {row[0]: row[1:] for row in cells if row[0] != "---"}


def mistake(results: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([str(results), "--variance"]) == 2
    return capsys.readouterr().err


def test_shares_are_those_of_the_effects_that_were_put_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(write_lines(tmp_path / "tiny.jsonl", runs()), capsys)
    squares = {"setting": 8 * 0.05**2, "row": 8 * 0.01**2, "seed": 8 * 0.01**2}
    total = sum(squares.values())
    for name, value in squares.items():
        assert found[name][1] == f"{value / total:.1%}"
    assert found["setting × row"][1] == "0.0%"
    assert found["seed × the others"][1] == "0.0%"
    assert [row[0] for row in found.values()] == ["df", "1", "1", "1", "1", "3"]


def test_seeds_that_all_cells_share_are_what_a_row_is_tested_against(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where every cell has the luck of its seeds, p of two rows is that of the paired t test."""
    found = [
        line(method, seed=seed, value=value, fingerprint=f"{method[0]}{seed:011x}")
        for method, values in SHARED.items()
        for seed, value in enumerate(values)
    ]
    expected = stats.ttest_rel(*SHARED.values()).pvalue
    assert stats.ttest_ind(*SHARED.values()).pvalue > 0.5
    assert rows(write_lines(tmp_path / "tiny.jsonl", found), capsys)["row"][3] == f"{expected:.3f}"


@pytest.mark.parametrize("subsets", [(0,), (0, 1)])
def test_fewer_than_five_seeds_or_subsets_have_no_p(
    subsets: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = write_lines(tmp_path / "tiny.jsonl", runs(subsets=subsets))
    assert {row[3] for row in rows(results, capsys).values()} == {"p", "–"}
    assert main([str(results), "--variance"]) == 0
    unit = "seeds" if len(subsets) == 1 else "subsets"
    assert f"no p: 2 {unit}; a claim takes 5 or more" in capsys.readouterr().out


def test_cells_with_seeds_of_their_own_have_no_p(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        line(method, seed=seed + first, value=value, fingerprint=f"{method[0]}{seed:011x}")
        for first, (method, values) in zip((0, 5), SHARED.items(), strict=True)
        for seed, value in enumerate(values)
    ]
    results = write_lines(tmp_path / "tiny.jsonl", found)
    assert {row[3] for row in rows(results, capsys).values()} == {"p", "–"}
    assert main([str(results), "--variance"]) == 0
    assert "no p: that takes subsets, or seeds that all cells share" in capsys.readouterr().out


def test_crossed_subsets_are_a_source_and_what_goes_with_them_is_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(write_lines(tmp_path / "tiny.jsonl", runs(subsets=(0, 1))), capsys)
    assert list(found)[1:] == [
        "setting",
        "row",
        "setting × row",
        "subset",
        "subset × the others",
        "seed",
    ]


def test_subsets_with_a_seed_each_are_one_source_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paired = [run for run in runs(subsets=(0, 1)) if run.seed == run.subset_seed]
    found = rows(write_lines(tmp_path / "tiny.jsonl", paired), capsys)
    assert "subset and seed" in found and "seed" not in found


def test_the_first_of_the_columns_is_taken_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(write_lines(tmp_path / "tiny.jsonl", runs()), capsys, "--columns", "nll")
    assert {row[1] for name, row in found.items() if name != "source"} == {"–"}


def test_a_cell_with_fewer_runs_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = mistake(write_lines(tmp_path / "tiny.jsonl", runs()[:-1]), capsys)
    assert "setting sam, row focal: 1 runs, other cells have 2" in said


def test_a_single_row_has_nothing_to_take_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = mistake(write_lines(tmp_path / "tiny.jsonl", runs()[:2]), capsys)
    assert said.startswith("--variance: one row in one setting")
