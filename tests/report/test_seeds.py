"""Several seeds at once: one report, which is kept."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest

import train
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
