"""Several seeds at once: one report, which is kept."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest

import train
from engine.report.seeds import class_grid
from engine.training.summary import ClassResult, RuleResult, Summary
from tests._runs import small_words


def test_several_seeds_leave_one_report_that_the_last_line_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = small_words(tmp_path, "schedule.epochs=1")
    assert train.main([*words, "--seeds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (file,) = (tmp_path / "synthetic").glob("seeds-*.md")
    assert lines[-1] == f"report: {file}"
    named = [line.partition(":")[0] for line in lines if line.startswith("seed ")]
    assert named == ["seed 0", "seed 1"]
    assert sum("test by class" in line for line in lines) == 1

    report = file.read_text()
    found = [json.loads(path.read_text()) for path in tmp_path.glob("synthetic/*/summary.json")]
    assert len(found) == 2
    for label in range(4):
        recalls = [s["rules"][s["headline"]]["classes"][label]["recall"] for s in found]
        expected = f"{statistics.mean(recalls):.3f} ± {statistics.stdev(recalls):.3f}"
        (row,) = re.findall(rf"^\| class{label} \|.*$", report, flags=re.MULTILINE)
        assert row.split(" | ")[3] == expected


def summary_of(recalls: list[float | None]) -> Summary:
    """A run whose classes have these recalls; None without a test image."""
    classes = tuple(
        ClassResult(
            label=label, name=f"class{label}", group="many", train_images=200 - label,
            recall=recall, precision=recall, f1=recall, support=0 if recall is None else 10,
        )
        for label, recall in enumerate(recalls)
    )  # fmt: skip
    last = RuleResult(epoch=1, val=None, test={}, classes=classes)
    return Summary(
        title="t", fingerprint="f", group="g", seed=0, split_fingerprint="s", code_hash="c",
        headline="last", rules={"last": last}, oracle=None, selection="s",
        class_counts=tuple(c.train_images for c in classes), group_sizes={}, notes=(), time={},
    )  # fmt: skip


def test_a_class_that_no_seed_ever_gets_right_is_among_the_lowest_recalls() -> None:
    summaries = [summary_of([0.9, 0.5, 0.4, 0.0, None, 0.7])] * 2
    grid = class_grid(summaries, most=4)
    assert [row[0] for row in grid.rows] == ["class3", "class2", "class5", "class0"]
    assert grid.title.endswith("lowest and highest 2 recalls of 5")
