"""The bench of samplers: what it holds equal, what it writes, and that it goes on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks import samplers
from tests._runs import SMALL
from tests.tuning._studies import BALANCED

WORDS = tuple(word for word in SMALL if not word.startswith(("schedule", "track")))


def given(*words: str) -> list[samplers.Study]:
    return samplers.studies(samplers.arguments(words))


def test_in_a_repetition_samplers_differ_and_nothing_else() -> None:
    studies = given("--trials", "4", "--epochs", "2", "--repetitions", "2")
    assert [(s.sampler, s.repetition) for s in studies] == [
        (name, repetition) for repetition in (0, 1) for name in ("random", "tpe", "gp")
    ]
    for repetition in (0, 1):
        same = [s for s in studies if s.repetition == repetition]
        assert all(s.search.base == same[0].search.base for s in same)
        assert {s.search.base.seed for s in same} == {repetition}
        assert {s.search.file.sampler.seed for s in same} == {repetition}
        files = [s.search.file.model_copy(update={"sampler": None}) for s in same]
        assert files[0] == files[1] == files[2]
        assert files[0].pruner.name == "none"
        assert files[0].enqueue == ()
        assert files[0].budget.trials == 4
    assert len({s.search.study for s in studies}) == 6


def test_the_table_has_the_mean_best_and_calls_noise_noise() -> None:
    random = np.array([[0.1, 0.5, 0.3], [0.2, 0.1, 0.4]])
    found = {"random": random, "tpe": random + np.array([[0.01], [-0.02]])}
    console = Console(width=80)
    with console.capture() as captured:
        console.print(samplers.table(found, BALANCED))
    lines = captured.get().splitlines()
    (line,) = [line for line in lines if line.strip().startswith("random")]
    assert line.split()[1:7] == ["0.150", "±", "0.071", "0.450", "±", "0.071"]
    (line,) = [line for line in lines if line.strip().startswith("tpe")]
    assert line.strip().endswith("-0.005 =")


def test_a_small_bench_writes_and_draws_and_is_not_run_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--trials", "1", "--epochs", "1", "--repetitions", "1", "--out", str(tmp_path)]
    assert samplers.main([*options, *WORDS]) == 0
    first = capsys.readouterr().out
    assert "3/3  gp-1-0" in first
    lines = [json.loads(line) for line in (tmp_path / "samplers.jsonl").read_text().splitlines()]
    assert [(line["sampler"], len(line["values"])) for line in lines] == [
        ("random", 1), ("tpe", 1), ("gp", 1),
    ]  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "samplers.csv").read_text().splitlines()))
    assert [float(row["best_so_far"]) for row in rows] == [line["values"][0] for line in lines]
    assert (tmp_path / "samplers.png").exists()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("validation.json")}
    assert len(before) == 1  # all samplers begin with the same draw, which is trained once
    assert samplers.main([*options, *WORDS]) == 0
    assert capsys.readouterr().out == first
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("validation.json")} == before


def test_a_mistake_in_the_words_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert samplers.main(["optim.lrr=1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("optim.lrr: unknown key")
