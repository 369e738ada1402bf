"""What rows have cost: columns, earlier stages included, and the best at equal cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.tables import cost_figure
from engine.tables.__main__ import main
from engine.tables.commands import first_stage_of, stages_of
from engine.tables.costs import mean_costs, pareto_front, shown
from engine.tables.record import RunRecord
from engine.tables.table import blocks_of, read_table
from engine.training.summary import Cost
from tests.tables._lines import line, write_lines


def cost(cpu_seconds: float, **changes: Any) -> Cost:
    counts = {"trained_parameters": 269434, "images": 1000, "forward": 1000, "backward": 1000}
    unknown = {"gpu_seconds": None, "energy": None, "gpu_memory": None}
    time = {"seconds": 9.0, "cpu_seconds": cpu_seconds, "memory": 2**29}
    return Cost.model_validate({**counts, **unknown, **time, **changes})


def second_stage(first: RunRecord, **changes: Any) -> RunRecord:
    run = line("crt", **changes)
    words = (*run.words, f"model.init_from=runs/x/{first.fingerprint}")
    return run.model_copy(update={"words": words, "fingerprint": "0" * 12})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Cross-entropy in 10 and 20 CPU seconds, focal for twice as much, a line of before."""
    plain = [line(seed=s, value=0.7, cost=cost(10.0 * (s + 1))) for s in range(2)]
    focal = [line("focal", seed=s, value=0.6, cost=cost(30.0)) for s in range(2)]
    better = line("inverse_weights", value=0.9, cost=cost(60.0, forward=2500, memory=2**30))
    return write_lines(tmp_path / "tiny.jsonl", [*plain, *focal, better, line("slower")])


def table(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, list[str]]:
    """The cells of a Markdown table by method; ``method`` is its heading."""
    assert main([*map(str, words), "--format", "markdown"]) == 0
    rows = [row for row in capsys.readouterr().out.splitlines() if row.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]
    return {row[0].partition("<sup>")[0]: row for row in cells}


def test_columns_are_means_over_runs_and_a_dash_for_lines_of_before(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = table(capsys, results, "--cost")
    names = ["trained", "images", "forward", "backward", "seconds", "CPU s", "memory (MiB)"]
    assert rows["method"][-7:] == names
    assert rows["cross_entropy"][-7:] == ["269k", "1k", "1k", "1k", "1.5", "15", "512"]
    assert rows["inverse_weights"][-5:] == ["2.5k", "1k", "1.5", "60", "1.02k"]
    assert rows["slower"][-7:] == ["–", "–", "–", "–", "1.5", "–", "–"]


def test_without_the_option_there_is_no_column_of_costs(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not {"trained", "CPU s"} & set(table(capsys, results)["method"])


def test_a_second_stage_has_cost_what_its_first_has_too(tmp_path: Path) -> None:
    first = line(cost=cost(10.0))
    second = second_stage(first, cost=cost(2.0, trained_parameters=650, memory=2**20))
    path = write_lines(tmp_path / "tiny.jsonl", [first, second])
    (block,) = blocks_of(read_table(path))
    costs = {row.method: row.costs for row in block.rows}
    assert costs["crt"]["cpu_seconds"] == 12.0
    assert costs["crt"]["images"] == 2000
    assert costs["crt"]["trained_parameters"] == 650
    assert costs["crt"]["memory"] == 2**29


def test_a_second_stage_whose_first_has_no_line_does_not_know_its_cost(tmp_path: Path) -> None:
    lone = second_stage(line(seed=7), cost=cost(2.0))
    (block,) = blocks_of(read_table(write_lines(tmp_path / "tiny.jsonl", [lone])))
    assert block.rows[0].costs["cpu_seconds"] is None


@pytest.mark.parametrize(
    ("words", "seconds", "images"),
    [
        (("model.init_from=[runs/x/{0}, runs/x/{1}]",), 32.0, 3000),
        (("teacher=runs/x/{0}",), 12.0, 2000),
        # The second half of classes: one run is both, and is counted once.
        (("model.init_from=runs/x/{0}", "teacher=runs/x/{0}"), 12.0, 2000),
        (("model.init_from=[runs/x/{0}, runs/x/" + "9" * 12 + "]",), None, None),
        (("teacher=another_folder",), None, None),
    ],
)
def test_a_mean_of_runs_has_cost_all_of_them_and_a_student_its_teacher(
    words: tuple[str, ...], seconds: float | None, images: int | None
) -> None:
    parts = [line(cost=cost(10.0)), line(seed=1, cost=cost(20.0))]
    named = [word.format(*(part.fingerprint for part in parts)) for word in words]
    run = line("soup", cost=cost(2.0))
    run = run.model_copy(update={"words": (*run.words, *named), "fingerprint": "0" * 12})
    found = mean_costs([run], [*parts, run])
    assert (found["cpu_seconds"], found["images"]) == (seconds, images)


def test_the_parts_of_a_mean_of_runs_come_before_it_and_each_once() -> None:
    parts = [line(), line(seed=1)]
    folders = ", ".join(f"runs/x/{part.fingerprint}" for part in parts)
    mean = line("soup").model_copy(
        update={"words": (f"model.init_from=[{folders}]",), "fingerprint": "1" * 12}
    )
    words = (f"model.init_from=runs/x/{mean.fingerprint}", f"teacher=runs/x/{parts[0].fingerprint}")
    last = line("last").model_copy(update={"words": words, "fingerprint": "2" * 12})
    assert stages_of(last, [last, mean, *parts]) == [*parts, mean, last]
    assert first_stage_of(last, [last, mean, *parts]) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (999.6, "1k"), (2.5e7, "25M"), (3.2e12, "3.2T")]
)
def test_costs_have_three_digits(value: float, text: str) -> None:
    assert shown(value, "cpu_seconds") == text


def test_the_front_is_what_nothing_cheaper_beats_and_equal_points_are_both_on_it() -> None:
    assert pareto_front([1, 1, 2, 3, 3], [5, 5, 4, 6, 5]) == [True, True, False, True, False]


def test_what_the_counts_leave_out_and_what_the_front_goes_by_is_said(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(results), "--cost"]) == 0
    assert "without the pass that made the features" in capsys.readouterr().out
    title = cost_figure.draw(blocks_of(read_table(results)), measure="cpu_seconds").get_suptitle()
    assert "by the means" in title and "may be noise" in title


def test_the_figure_fills_the_front_joins_it_and_names_every_point(results: Path) -> None:
    (axes,) = cost_figure.draw(blocks_of(read_table(results)), measure="cpu_seconds").axes
    (front, *points) = [drawn for drawn in axes.lines if len(drawn.get_xdata()) > 0]
    assert list(zip(front.get_xdata(), front.get_ydata(), strict=True)) == [
        (15.0, 0.7),
        (60.0, 0.9),
        (60.0, 0.9),
    ]
    filled = {
        point.get_xdata()[0]: point.get_markerfacecolor() != "white"
        for point in points
        if point.get_marker() == "o"
    }
    assert filled == {15.0: True, 30.0: False, 60.0: True}
    names = {text.get_text(): text.get_fontweight() for text in axes.texts}
    assert names == {"cross_entropy": "bold", "focal": "normal", "inverse_weights": "bold"}


def test_where_less_is_better_the_front_goes_by_the_least(results: Path) -> None:
    blocks = blocks_of(read_table(results), columns=("nll",))
    (axes,) = cost_figure.draw(blocks, measure="cpu_seconds", metric="nll").axes
    assert [t.get_text() for t in axes.texts if t.get_fontweight() == "bold"] == ["cross_entropy"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--against", "cpu_seconds"], "--against cpu_seconds: has no effect without --figure"),
        (["--figure", "f.png", "--against", "cpu_second"], "did you mean cpu_seconds?"),
        (["--figure", "f.png", "--against", "energy"], "--against energy: no row knows it"),
        (["--figure", "f.png", "--cost"], "--cost: has no effect with --figure"),
        (["--format", "csv", "--cost"], "--cost: has no effect with --format csv"),
    ],
)
def test_a_mistake_is_one_line(
    results: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main([str(results), *words]) == 2
    assert said in capsys.readouterr().err
