"""What a table's page says of training: seconds with earlier stages, and curves by their epochs."""

from __future__ import annotations

from typing import Any

import pytest

from engine.analysis.page_sections import document_of_table
from engine.analysis.table_rows import mean_curve, training_seconds
from engine.report.page.charts import Curves
from engine.report.page.parts import Line
from tests.report._tables import TABLE
from tests.tables._lines import line

ACCURACY = "val/balanced_accuracy"


def history(values: dict[int, float | None]) -> list[dict[str, Any]]:
    return [{"epoch": epoch, ACCURACY: value} for epoch, value in values.items()]


def test_a_row_that_starts_from_another_has_taken_its_seconds_too() -> None:
    first = line(seconds=10.0)
    run = line("focal", seconds=3.0)
    words = (*run.words, f"model.init_from=runs/x/{first.fingerprint}")
    second = run.model_copy(update={"words": words})
    found = training_seconds([second], [first, second])
    assert found is not None and found["mean"] == 13.0
    assert training_seconds([second], [second]) is None
    alone = training_seconds([first], [first, second])
    assert alone is not None and alone["mean"] == 10.0


def test_a_mean_curve_has_the_epochs_at_which_every_run_was_validated() -> None:
    every_other = history({1: None, 2: 0.4, 3: None, 4: 0.6, 5: None, 6: 0.7})
    found = mean_curve([every_other, history({2: 0.2, 3: 0.3, 4: 0.4})])
    assert found is not None and found["epochs"] == [2, 4]
    assert found["mean"] == pytest.approx([0.3, 0.5])
    assert mean_curve([history({1: None})]) is None


def test_curves_of_a_page_stand_at_their_own_epochs() -> None:
    setting = TABLE["settings"][0]
    rows = [dict(row) for row in setting["rows"][:2]]
    rows[0]["curve"] = {"epochs": [1, 2, 3, 4], "mean": [0.1, 0.2, 0.3, 0.4]}
    rows[1]["curve"] = {"epochs": [2, 4], "mean": [0.5, 0.7]}
    page = document_of_table({**TABLE, "settings": [{**setting, "rows": rows}]})
    (chart,) = (part for part in page.sections[0].parts if isinstance(part, Curves))
    assert chart.epochs == [1, 2, 3, 4]
    assert [curve.values for curve in chart.curves] == [
        ["0.1", "0.2", "0.3", "0.4"],
        ["–", "0.5", "–", "0.7"],
    ]


def test_a_page_says_below_its_differences_what_their_interval_is() -> None:
    page = document_of_table(TABLE)
    said = [part.text for part in page.sections[0].parts if isinstance(part, Line)]
    (line,) = (text for text in said if "studentized bootstrap" in text)
    assert line.startswith("in brackets: 95 % interval, at each end the wider of Student's t")
