import re

import pytest

from benchmarks import photos


# timm leaves its files to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_both_loaders_are_measured_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--images", "4", "--batch-size", "2", "--workers", "0", "--rounds", "1"]
    assert photos.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["ours", "timm", "ours"]
    for line in lines[:2]:
        assert re.search(r"\d+\.\d\d ms of CPU an image .* \d+ images a second a core", line)
    assert "4 images a round, 1 rounds, 0 worker(s)" in lines


def test_batches_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert photos.main(["--images", "5", "--batch-size", "2"]) == 2
    assert "5 .jpg files: give a number that --batch-size=2 divides" in capsys.readouterr().err
