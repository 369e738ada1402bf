"""The benchmark of light tuning: every way makes its steps, and says what it trains."""

import pytest

from benchmarks import light_tuning

SMALL = ("model=cifar_resnet8", "data.size=8", "data.num_classes=2", "optim.batch_size=8")


def test_every_way_is_measured_against_full_tuning(capsys: pytest.CaptureFixture[str]) -> None:
    assert light_tuning.main([*SMALL, "--rounds", "1", "--ways", "cached", "forward", "norm"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for way in ("full", "cached", "forward", "norm"):
        assert sum(line.startswith(f"{way} ") for line in lines) == 3  # wall, CPU, parameters
    assert any(line.split()[:3] == ["cached", "trains", "130"] for line in lines)


def test_a_mistake_in_the_words_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert light_tuning.main(["optim.lrr=1", "--ways", "norm"]) == 2
    assert capsys.readouterr().err.startswith("optim.lrr: ")
