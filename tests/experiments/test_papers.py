"""The tables that ship: each says what it is, and every run of each resolves."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.components import ROOT, names
from experiments.grid import read_grid
from tests.experiments._tables import cells_of

PAPERS = sorted((ROOT / "experiments" / "papers").glob("*.yaml"))


@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_a_table_opens_with_command_cost_and_expected_result(path: Path) -> None:
    opening = [line for line in path.read_text().splitlines() if line.startswith("#")]
    heads = [line[1:].split()[0] for line in opening[1:4]]
    assert heads == ["command", "cost", "expected"], path


@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_every_run_of_a_table_resolves(path: Path) -> None:
    grid = read_grid(path)
    num = len(grid.methods) * len(grid.settings) * len(grid.seed_pairs)
    assert len({cell.fingerprint for cell in cells_of(path)}) == num


def test_digits_lt_has_every_loss_that_needs_no_other_model() -> None:
    used = {cell.config.loss.name for cell in cells_of(ROOT / "experiments/papers/digits_lt.yaml")}
    assert used == set(names("losses")) - {"distillation"}


def test_the_small_table_is_a_part_of_the_large_one() -> None:
    small, large = (
        {
            (cell.method, cell.fingerprint)
            for cell in cells_of(ROOT / f"experiments/papers/{name}.yaml")
        }
        for name in ("digits_small", "digits_lt")
    )
    assert small < large
