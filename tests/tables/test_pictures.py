"""The pictures of losses/README.md: what is drawn is what the losses and the results say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from docs import focal_curves, head_and_tail
from docs.head_and_tail import shifts
from engine.tables.record import RunRecord
from tests.tables._lines import line, write_lines


def with_recalls(method: str, recalls: list[float | None], *, seed: int = 0) -> RunRecord:
    result = line().rules["val"].model_dump() | {"recall": recalls}
    return line(method, seed=seed, rules={"val": result})


RUNS = [
    with_recalls("cross_entropy", [0.9, 0.7, 0.5, 0.3]),
    with_recalls("cross_entropy", [0.8, 0.7, 0.5, 0.2], seed=1),
    with_recalls("focal", [0.9, 0.1, 0.1, 0.4]),
    with_recalls("inverse_weights", [0.7, 0.1, 0.1, 0.5]),
    with_recalls("inverse_weights", [0.7, 0.1, 0.1, 0.6], seed=1),
]


def test_gamma_0_is_cross_entropy_and_its_gradient_what_is_missing_to_certainty() -> None:
    p, values, slopes = focal_curves.curve(gamma=0.0)
    assert values == pytest.approx([-math.log(x) for x in p])
    assert slopes == pytest.approx([1 - x for x in p])


def test_alpha_weighs_positives_and_the_rest_of_1_negatives() -> None:
    plain = focal_curves.curve(gamma=2.0, positive=False)[1]
    assert focal_curves.curve(gamma=2.0, alpha=0.25, positive=False)[1] == pytest.approx(
        [0.75 * value for value in plain]
    )


def test_a_curve_for_every_gamma_and_two_for_every_alpha_are_drawn(tmp_path: Path) -> None:
    lines = [len(axes.lines) for axes in focal_curves.draw().axes]
    assert lines == [5, 5, 6, 6]
    assert focal_curves.main([str(tmp_path / "docs/focal.png")]) == 0
    assert (tmp_path / "docs/focal.png").read_bytes().startswith(b"\x89PNG")


def test_head_and_tail_are_set_against_the_baseline_of_the_same_seeds() -> None:
    focal, inverse = shifts(RUNS, baseline="cross_entropy")
    assert (focal.method, focal.num_seeds) == ("focal", 1)
    assert (focal.head, focal.tail) == pytest.approx((0, 10))
    assert (inverse.method, inverse.num_seeds) == ("inverse_weights", 2)
    assert (inverse.head, inverse.tail) == pytest.approx((-15, 30))


def test_every_method_of_every_setting_has_a_line(tmp_path: Path) -> None:
    other = [run.model_copy(update={"setting": "factor 9"}) for run in RUNS]
    figure = head_and_tail.draw([*RUNS, *other])
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["focal", "inverse_weights"]
    assert [len(line.get_xdata()) for axes in figure.axes for line in axes.lines] == [2] * 6
    results = write_lines(tmp_path / "tiny.jsonl", RUNS)
    assert head_and_tail.main([str(results), str(tmp_path / "head.png")]) == 0
    assert (tmp_path / "head.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("runs", "words", "complaint"),
    [
        (RUNS, ["--baseline", "ldam"], "no run of the baseline 'ldam': choose from cross_entropy"),
        (RUNS[1:3], [], "focal and cross_entropy share no seed"),
        ([], [], "has no runs"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_exit_code_2(
    runs: list[RunRecord],
    words: list[str],
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = write_lines(tmp_path / "tiny.jsonl", runs)
    assert head_and_tail.main([str(results), str(tmp_path / "head.png"), *words]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "head.png").exists()
